# Two commands: `make train` and `make test`. Each makes a virtual environment first.
# ARGS goes to the command: make train ARGS="--data my_pictures --preset fast"
PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= requirements.txt
ARGS ?=

.PHONY: train test

train: $(VENV)/ready
	$(VENV)/bin/python -m cyclegan_tf.train $(ARGS)

test: $(VENV)/ready-for-tests
	$(VENV)/bin/python -m pytest $(ARGS)

$(VENV)/ready: $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -r $(REQUIREMENTS)
	touch $@

$(VENV)/ready-for-tests: $(VENV)/ready requirements-test.txt
	$(VENV)/bin/python -m pip install --quiet -r $(REQUIREMENTS) -r requirements-test.txt
	touch $@
