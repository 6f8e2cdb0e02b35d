# Every target calls one command; every command is `python -m PACKAGE`.

# Some folders have the names of targets. Only the stamp of the set-up is a file.
.PHONY: help setup phantoms checked features head sweep choose submit ensemble export table test bench lint check
.DEFAULT_GOAL := help

# --- what you may set, on the command line or in the environment; docs/options.md explains each -------------------
# DATA      folder with train/, valid/, test/ and label files; phantoms are drawn if it is not given
# STORE     feature store; its name is made of DATA and BACKBONE if it is not given
# REBUILD   1 replaces a store that holds other features, and builds its network again if that is gone
# HEAD      kernel, dense, knn, logistic, ridge, tail or prior; several for choose
# SET       parameters of the head: SET="hidden=512 epochs=20"    RUN   folder of the run; runs/HEAD if not given
# DECODER   platt+expected-f1, fixed:0.3, global, per-concept, top-k, ...; several for choose
# TUNE      folds or valid: what the decoder is tuned on    NESTED   1 adds a nested cross-validation estimate
# TRAIN     train or train+valid: what the saved head learns from, after everything else was chosen on train
# GRID      for sweep: GRID="C=0.001,0.01,0.1"    BY   valid or folds: what decides
# CONCEPTS  the concepts to learn: CONCEPTS="C0041618 C0040405"; all if not given
# RECIPE    a published system, which sets all of the above: RECIPE=ssn-model2 (recipes/*.mk)
# RUNS      for ensemble: RUNS="runs/a runs/b"    HOW   mean, weighted, stack, union, intersection or vote
# EDITION   2022 to 2026: the year whose rules the submission follows
# WEIGHTS_densenet121 (or another backbone): its weights, if WEIGHTS is not given
# BACKBONE WEIGHTS SIZE LAYER POOLING ENGINE PRECISION DTYPE WORKERS: options of `python -m featurize --help`
# PHANTOMS PHANTOM_IMAGES: folder and number of the phantoms
# VENV PYTHON: the environment that is made, and the Python 3.11 that makes it
RECIPES := $(sort $(basename $(notdir $(wildcard recipes/*.mk))))
ifneq ($(strip $(RECIPE)),)
  ifeq ($(filter $(RECIPE),$(RECIPES)),)
    $(error no recipe '$(RECIPE)'; there are $(RECIPES))
  endif
  include recipes/$(RECIPE).mk
  # Recipes that need the same features share a store.
  KEY = $(subst $() ,,$(foreach option,SIZE LAYER POOLING,$(if $($(option)),.$($(option)))))
  RUN ?= runs/$(NAME)/$(RECIPE)
endif
HEAD    ?= kernel
EDITION ?= 2026
RUN     ?= runs/$(if $(RUNS),ensemble,$(HEAD))
ifneq ($(and $(filter sweep,$(MAKECMDGOALS)),$(if $(strip $(GRID)),,lacking)),)
  $(error make sweep needs GRID, the values of each parameter: GRID="C=0.001,0.01,0.1")
endif
ifneq ($(and $(filter ensemble,$(MAKECMDGOALS)),$(if $(strip $(RUNS)),,lacking)),)
  $(error make ensemble needs RUNS, the folders of runs to join: RUNS="runs/logistic runs/dense")
endif
VENV    ?= .venv
PYTHON  ?= python3.11

PHANTOMS        ?= data/phantoms
PHANTOM_IMAGES  ?= 2000
ifeq ($(strip $(DATA)),)
  override DATA := $(PHANTOMS)
  WEIGHTS ?= random:0
  DRAWN   := phantoms
endif
NAME  := $(shell basename "$$(realpath -m "$(DATA)")")
NET   := $(shell echo "$(or $(BACKBONE),densenet121)" | tr A-Z a-z)
STORE ?= data/$(NAME).$(NET)$(KEY).h5

# ------------------------------------------------------------------------------------------------------------------
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
EXTRA   := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
RUFF    := --line-length 120 --target-version py311
RULES   := --select E,F,W,I,B,UP,SIM,RUF,PT,C4,PIE,RET --ignore RUF001,RUF002,RUF003 --per-file-ignores 'tests/*:E501'
FROM     = $(or $(WEIGHTS),$(WEIGHTS_$(NET)))
# An option that is not set is left out: the command then follows an existing store or run, or has its default.
option   = $(if $($(1)),--$(2) "$($(1))")
FEATURES = $(call option,BACKBONE,backbone) $(call option,FROM,weights) $(call option,SIZE,size) \
           $(call option,LAYER,layer) $(call option,POOLING,pooling) $(call option,ENGINE,engine) \
           $(call option,PRECISION,precision) $(call option,DTYPE,dtype) \
           $(call option,WORKERS,workers) $(if $(filter 1 yes true,$(REBUILD)),--rebuild)
NESTS    = $(if $(filter 1 yes true,$(NESTED)),--nested)
HEADS    = "$(HEAD)" --store "$(STORE)" --data "$(DATA)" --out "$(RUN)" $(call option,DECODER,decoder) \
           $(call option,TUNE,tune) $(call option,TRAIN,train) $(NESTS) \
           $(if $(filter-out none,$(POOLING)),--pooling "$(POOLING)") $(if $(CONCEPTS),--concepts $(CONCEPTS)) \
           $(if $(SET),--set $(foreach word,$(SET),'$(word)'))

GRIDS    = --grid $(foreach word,$(GRID),'$(word)') $(call option,BY,by)
CHOICES  = --store "$(STORE)" --data "$(DATA)" $(call option,POOLING,pooling) $(if $(DECODER),--decoders $(DECODER))

# A run knows its store: only a STORE that the user gives is passed on.
NAMED_STORE = $(if $(filter-out file,$(origin STORE)),--store "$(STORE)")

help:  ## this text
	@echo "usage: make TARGET [NAME=VALUE ...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@sed -n '/^# --- what you may set/,/^RECIPES/{/^# [A-Z]/s/^# /  /p}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install the pinned dependencies into it

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing for $(EXTRA) into $(VENV): about 2 GB, a minute or more"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),dicom,dev]'
	@touch $@

phantoms: setup  ## draw phantoms: a small data set that needs no download
	@$(PY) -m featurize.phantoms "$(PHANTOMS)" --images $(PHANTOM_IMAGES)

# The whole request is checked, in seconds, before the first image is read: targets of one line run in its order.
.NOTPARALLEL:
CHECKED = $(HEADS) $(if $(filter none,$(POOLING)),--pooling none) $(ASKED)
submit: export ASKED = --edition $(EDITION)

checked: setup $(DRAWN)
	@$(PY) -m heads check $(CHECKED)

features: setup $(DRAWN)  ## embed every image of DATA into STORE, once
	@$(PY) -m featurize "$(DATA)" --store "$(STORE)" $(FEATURES)

ifeq ($(and $(MEMBERS),$(if $(MEMBER),,several)),)
head: checked features  ## train HEAD on STORE and score it on valid
	@$(PY) -m heads fit $(HEADS)
else
head: setup $(DRAWN)
	@for member in $(MEMBERS); do $(MAKE) --no-print-directory head MEMBER=$$member RUN="$(RUN).$$member" || exit; done
	@$(PY) -m heads ensemble $(foreach member,$(MEMBERS),"$(RUN).$(member)") --out "$(RUN)" --how $(HOW) \
	  $(if $(filter mean weighted stack,$(HOW)),$(call option,DECODER,decoder)) $(call option,TUNE,tune)
endif

sweep: ASKED = $(GRIDS)
sweep: checked features  ## train HEAD with every combination of GRID; save the best as RUN
	@$(PY) -m heads sweep $(HEADS) $(GRIDS)

choose: CHECKED = $(if $(filter-out file,$(origin HEAD)),$(HEAD)) $(CHOICES)
choose: checked features  ## score every HEAD with every DECODER in one table, by folds of train
	@$(PY) -m heads choose $(CHOICES) $(if $(filter-out file,$(origin HEAD)),--heads $(HEAD))

submit: head  ## write the submission of RUN for test, checked by the rules of EDITION
	@$(PY) -m heads predict "$(RUN)" --store "$(STORE)" --data "$(DATA)" --edition $(EDITION)

ensemble: setup  ## join RUNS by HOW into RUN, and write its submission
	@$(PY) -m heads ensemble $(RUNS) --out "$(RUN)" $(call option,HOW,how) $(call option,DECODER,decoder) $(call option,TUNE,tune) $(NESTS)
	@$(PY) -m heads predict "$(RUN)" --data "$(DATA)" --edition $(EDITION)

export: setup  ## write RUN as one Keras model, image in, scores out: RUN/model.keras
	@$(PY) -m heads export "$(RUN)" $(NAMED_STORE)

table: setup $(DRAWN)  ## run RECIPES (all) on DATA; print published scores beside ours
	@for recipe in $(RECIPES); do $(MAKE) --no-print-directory head RECIPE=$$recipe || exit; done
	@$(PY) -m heads table recipes "runs/$(NAME)"

test: setup  ## run the tests (about 8 minutes)
	@$(PY) -m pytest -q

bench: setup  ## measure speed beside other libraries, full size, 25 kills (40 minutes)
	@$(PY) benchmarks/embedding.py
	@$(PY) benchmarks/drift.py
	@$(PY) benchmarks/store.py
	@$(PY) benchmarks/faults.py
	@$(PY) benchmarks/logistic.py
	@$(PY) benchmarks/learning.py
	@$(PY) benchmarks/decoders.py
	@$(PY) benchmarks/tail.py
	@$(PY) benchmarks/scores.py

lint: setup  ## check style and types
	@$(PY) -m ruff check --quiet $(RUFF) $(RULES) .
	@$(PY) -m ruff format --quiet $(RUFF) --check --diff .
	@$(PY) -m mypy --no-error-summary

check: lint test  ## both
