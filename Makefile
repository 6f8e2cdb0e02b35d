# Every target calls one command; every command is `python -m PACKAGE`.

# Some folders have the names of targets. Only the stamp of the set-up is a file.
.PHONY: help setup phantoms look checked features head sweep choose best embedded submit ensemble predict explain report serve export table runs test bench bench-full lint check anew
.DEFAULT_GOAL := help
# No built-in rules: one would make `install` of install.sh.
.SUFFIXES:

# --- what you may set, on the command line or in the environment; docs/options.md explains each -------------------
# DATA      folder with train/, valid/, test/ and label files; phantoms are drawn if it is not given
# STORE     feature store; its name is made of DATA and BACKBONE if it is not given
# STORES    stores of the same images, whose features are joined: STORES="data/a.h5 data/b.h5"
# REBUILD   1 replaces a store that holds other features, and builds its network again if that is gone
# HEAD      kernel, dense, knn, logistic, ridge, tail or prior; several for choose
# SET       parameters of the head: SET="hidden=512 epochs=20"    RUN   folder of the run; runs/NAME/HEAD if not given
# DECODER   platt+expected-f1, fixed:0.3, global, per-concept, top-k, ...; several for choose
# TUNE      folds or valid: what the decoder is tuned on    NESTED   1 adds a nested cross-validation estimate
# TRAIN     train or train+valid: what the saved head learns from, after everything else was chosen on train
# GRID      for sweep: GRID="C=0.001,0.01,0.1"    BY   valid or folds: what decides
# BUDGET    for best: the time that the search may take, such as 30m    SIZES   further sizes to embed at: SIZES="448"
# CONCEPTS  the concepts to learn, or to explain, then also by name: CONCEPTS="C0041618 C0040405"; all if not given
# RECIPE    a published system, which sets all of the above: RECIPE=ssn-model2 (recipes/*.mk)    RECIPES   for table
# AGAINST   for report: other runs on the same data to compare RUN with: AGAINST="runs/a/x runs/a/y"
# HEAT_MAPS for report: how many images get heat maps; none if not given
# RUNS      for ensemble: RUNS="runs/a/x runs/a/y"; for runs: the folders to list, runs/ if not given
# HOW       for ensemble: mean, weighted, stack, union, intersection or vote
# IMAGES    for predict and explain: files, and folders of images: IMAGES="new_images scan.dcm"
# OUT       for predict the CSV file, for explain the folder of the pictures; heat_maps/ if not given
# PORT HOST for serve: PORT=8000; HOST is this machine alone if it is not given on the command line
# EDITION   2022 to 2026: the year whose rules the submission follows
# WEIGHTS_densenet121 (or another backbone): its weights, if WEIGHTS is not given
# SCHEDULER  for features, sweep, choose and best: tcp://host:port of a Dask cluster, or local    DATA may then be s3://...
# BACKBONE WEIGHTS SIZE LAYER POOLING ENGINE PRECISION DTYPE WORKERS: options of `python -m featurize --help`
# PHANTOMS PHANTOM_IMAGES: folder and number of the phantoms
# VENV PYTHON EXTRA: the environment, its Python (3.11 to 3.13), and what it is for: cpu, gpu, jax or jax-cuda
SETTABLE := AGAINST BACKBONE BUDGET BY CONCEPTS DATA DECODER DTYPE EDITION ENGINE EXTRA GRID HEAD HEAT_MAPS HOST HOW \
            IMAGES LAYER MEMBERS NESTED OUT PHANTOMS PHANTOM_IMAGES POOLING PORT PRECISION PYTHON REBUILD RECIPE \
            RECIPES RUN RUNS SCHEDULER SET SIZE SIZES STORE STORES TRAIN TUNE VENV WEIGHTS WORKERS

# --- what is set is known, and is text ----------------------------------------------------------------------------
# One word of the shell: a text, the value of a variable, or each word of it.
quote = '$(subst ','\'',$(1))'
text  = $(call quote,$($(1)))
list  = $(foreach word,$($(1)),$(call quote,$(word)))
define newline


endef
GIVEN   := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(firstword $(filter-out $(SETTABLE) WEIGHTS_% MEMBER MAKE% SHELL .SHELLFLAGS,$(GIVEN)))
ifneq ($(UNKNOWN),)
  CLOSEST := import sys, difflib; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))
  NEAREST := $(shell python3 -c $(call text,CLOSEST) $(call text,UNKNOWN) $(SETTABLE) 2>/dev/null)
  ADVICE  := $(if $(NEAREST),did you mean $(NEAREST)?,parameters of a head go into SET;)
  $(error unknown variable $(UNKNOWN); $(ADVICE) `make help` lists all)
endif
$(foreach name,$(SETTABLE) $(filter WEIGHTS_%,$(.VARIABLES)),$(if $(filter command environment,$(origin $(name))),\
  $(if $(findstring $$,$(value $(name)))$(findstring $(newline),$(value $(name))),\
    $(error $(name) has a $$ or a line end in it, which make cannot pass on; use another name, or a link))))

# --- what is used if it is not set --------------------------------------------------------------------------------
PUBLISHED := $(sort $(basename $(notdir $(wildcard recipes/*.mk))))
RECIPES   ?= $(PUBLISHED)
ifneq ($(filter-out $(PUBLISHED),$(RECIPE) $(RECIPES)),)
  $(error no recipe '$(firstword $(filter-out $(PUBLISHED),$(RECIPE) $(RECIPES)))'; there are $(PUBLISHED))
endif
MEMBERS   :=
MEMBER    :=
KEY       :=
ifneq ($(strip $(RECIPE)),)
  ifneq ($(word 2,$(RECIPE)),)
    $(error RECIPE is one recipe; several: make table RECIPES="$(RECIPE)")
  endif
  include recipes/$(strip $(RECIPE)).mk
  # The same features have the same store, whether a recipe asks for them or nothing does.
  KEY = $(subst $() ,,$(addprefix .,$(filter-out 224,$(SIZE)) $(LAYER) $(filter-out avg,$(POOLING))))
  RUN ?= runs/$(NAME)/$(RECIPE)
endif
HEAD    ?= kernel
EDITION ?= 2026
BUDGET  ?= 30m
RUN     ?= runs/$(NAME)/$(if $(RUNS),ensemble,$(if $(filter best,$(MAKECMDGOALS)),best,$(HEAD)))
ifneq ($(and $(filter sweep,$(MAKECMDGOALS)),$(if $(strip $(GRID)),,lacking)),)
  $(error make sweep needs GRID, the values of each parameter: GRID="C=0.001,0.01,0.1")
endif
ifneq ($(and $(filter ensemble,$(MAKECMDGOALS)),$(if $(strip $(RUNS)),,lacking)),)
  $(error make ensemble needs RUNS, the folders of runs to join: RUNS="runs/a/logistic runs/a/dense")
endif
ifneq ($(and $(filter predict explain,$(MAKECMDGOALS)),$(if $(strip $(IMAGES)),,lacking)),)
  $(error make $(firstword $(filter predict explain,$(MAKECMDGOALS))) needs IMAGES, files or folders: IMAGES="new_images scan.dcm")
endif
VENV    ?= .venv
ifneq ($(word 2,$(VENV)),)
  $(error VENV=$(VENV) has a space in it; expected a path without)
endif

PHANTOMS        ?= data/phantoms
PHANTOM_IMAGES  ?= 2000
DRAWN           :=
ifeq ($(strip $(DATA)),)
  override DATA := $(PHANTOMS)
  WEIGHTS ?= random:0
  DRAWN   := phantoms
endif
# The name of the folder, which names stores and runs. A list of RUNS has spaces between them, so a name has none.
NAME  := $(shell basename "$$(realpath -m -- $(call text,DATA))" | tr ' $$' __)
NET   := $(shell echo $(call quote,$(or $(BACKBONE),densenet121)) | tr A-Z a-z)
# `make best` takes every network whose weights are given, at more than one size, with an earlier layer.
SIZES    ?= 448
EMBEDDED :=
LAYERS   :=
ifneq ($(and $(filter best,$(MAKECMDGOALS)),$(if $(strip $(STORE)$(STORES)$(RECIPE)),,free)),)
  ifeq ($(strip $(LAYER))$(filter none,$(POOLING)),)
    LAYER  := earlier,last
    LAYERS := layers.
  endif
  NETS     := $(or $(sort $(patsubst WEIGHTS_%,%,$(filter WEIGHTS_%,$(.VARIABLES)))),$(NET))
  LARGER   := $(filter-out $(or $(SIZE),224),$(SIZES))
  ifneq ($(word 2,$(NETS) $(LARGER)),)
    STORES   := $(foreach net,$(NETS),$(foreach size,. $(addprefix .,$(addsuffix .,$(LARGER))),data/$(NAME).$(LAYERS)$(net)$(size)h5))
    EMBEDDED := embedded
  endif
endif
STORE ?= data/$(NAME).$(if $(strip $(STORES)),joined,$(LAYERS)$(NET)$(KEY)).h5

# ------------------------------------------------------------------------------------------------------------------
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
# The stamp holds the EXTRA of the last set-up, which the next one follows.
EXTRA   ?= $(or $(shell cat $(STAMP) 2>/dev/null),$(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu))
SEEN     = $(shell $(PY) -V 2>/dev/null; cat $(STAMP) 2>/dev/null)
OTHER    = $(filter-out $(SEEN),$(if $(filter-out file,$(origin EXTRA)),$(EXTRA)) \
             $(if $(PYTHON),$(shell $(call text,PYTHON) -V 2>/dev/null || echo none)))
RUFF    := --line-length 120 --target-version py311
RULES   := --select E,F,W,I,B,UP,SIM,RUF,PT,C4,PIE,RET --ignore RUF001,RUF002,RUF003 --per-file-ignores 'tests/*:E501'
FROM     = $(or $(WEIGHTS),$(WEIGHTS_$(NET)))
# An option that is not set is left out: the command then follows an existing store or run, or has its default.
option   = $(if $($(1)),--$(2) $(call text,$(1)))
FEATURES = $(call option,BACKBONE,backbone) $(call option,FROM,weights) $(call option,SIZE,size) \
           $(call option,LAYER,layer) $(call option,POOLING,pooling) $(call option,ENGINE,engine) \
           $(call option,PRECISION,precision) $(call option,DTYPE,dtype) \
           $(call option,WORKERS,workers) $(call option,SCHEDULER,scheduler) $(if $(filter 1 yes true,$(REBUILD)),--rebuild)
NESTS    = $(if $(filter 1 yes true,$(NESTED)),--nested)
HEADS    = $(call text,HEAD) --store $(call text,STORE) --data $(call text,DATA) --out $(call text,RUN) \
           $(call option,DECODER,decoder) $(call option,TUNE,tune) $(call option,TRAIN,train) $(NESTS) \
           $(if $(filter-out none,$(POOLING)),--pooling $(call text,POOLING)) \
           $(if $(CONCEPTS),--concepts $(call list,CONCEPTS)) $(if $(SET),--set $(call list,SET))
TASK     = --data $(call text,DATA) --edition $(call text,EDITION)

GRIDS    = --grid $(call list,GRID) $(call option,BY,by)
CHOICES  = --store $(call text,STORE) --data $(call text,DATA) $(call option,POOLING,pooling) \
           $(if $(DECODER),--decoders $(call list,DECODER))

# A run knows its store: only a STORE that the user gives is passed on.
NAMED_STORE = $(if $(filter-out file,$(origin STORE)),--store $(call text,STORE))

# The command to run next, with what was set now. The target that was named last prints it.
shown    = $(if $(or $(word 2,$($(1))),$(findstring ',$($(1))),$(findstring ",$($(1)))),$(call text,$(1)),$($(1)))
SET_NOW  = $(foreach name,$(filter-out $(1),$(filter $(SETTABLE) WEIGHTS_%,$(GIVEN))),$(name)=$(call shown,$(name)))
LOOK     = make report RUN=$(call shown,RUN) (or make serve, make predict IMAGES=..., make explain IMAGES=...)
next     = $(if $(filter 0$@,$(MAKELEVEL)$(lastword $(MAKECMDGOALS))),@printf '%s\n' $(call quote,next: $(1)))

help:  ## this text
	@echo "usage: make TARGET [NAME=VALUE ...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14
	@echo
	@sed -n '/^# --- what you may set/,/^SETTABLE/{/^# [A-Z]/s/^# /  /p}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install the pinned dependencies into it

$(STAMP): setup.cfg pyproject.toml constraints.txt $(if $(strip $(OTHER)),anew)
	@sh install.sh $(VENV) $(call text,EXTRA) $(if $(PYTHON),$(call text,PYTHON))

phantoms: setup  ## draw phantoms: a small data set that needs no download
	@$(PY) -m featurize.phantoms $(call text,PHANTOMS) --images $(call text,PHANTOM_IMAGES)

# The whole request is checked, in seconds, before the first image is read: targets of one line run in its order.
.NOTPARALLEL:
CHECKED = $(HEADS) $(if $(filter none,$(POOLING)),--pooling none) $(ASKED)
submit: export ASKED = --edition $(call text,EDITION)

checked: setup $(DRAWN)
	@$(PY) -m heads check $(CHECKED)

look: setup $(DRAWN)  ## look at DATA before it is embedded: counts, faults of labels, unreadable images, leaks
	@$(PY) -m show look $(call text,DATA)
	$(call next,make features $(SET_NOW))

ifneq ($(strip $(STORES)),)
features: setup $(DRAWN) $(EMBEDDED)
	@$(PY) -m cache join $(call text,STORE) $(call list,STORES)
else
features: setup $(DRAWN)  ## embed every image of DATA into STORE, once
	@$(PY) -m featurize $(call text,DATA) --store $(call text,STORE) $(FEATURES)
	$(call next,make head $(SET_NOW) (or make choose: every head with every decoder))
endif

# With LAYER=last the first store of a network has the name that `make features` gives it, and may be there.
EACH  = --no-print-directory features LAYER=$(call text,LAYER) STORES= BACKBONE=$$net
PLACE = data/$(call text,NAME).$(LAYERS)$$net
embedded: setup $(DRAWN)
	@for net in $(NETS); do \
	  $(MAKE) $(EACH) STORE=$(PLACE).h5 || exit; \
	  for size in $(LARGER); do $(MAKE) $(EACH) SIZE=$$size STORE=$(PLACE).$$size.h5 || exit; done; done

ifeq ($(and $(MEMBERS),$(if $(MEMBER),,several)),)
head: checked features  ## train HEAD on STORE and score it on valid
	@$(PY) -m heads fit $(HEADS)
	$(call next,make submit $(SET_NOW))
else
head: setup $(DRAWN)
	@for member in $(MEMBERS); do \
	  $(MAKE) --no-print-directory head MEMBER=$$member RUN=$(call text,RUN).$$member || exit; done
	@$(PY) -m heads ensemble $(foreach member,$(MEMBERS),$(call quote,$(RUN).$(member))) --out $(call text,RUN) \
	  --how $(call text,HOW) $(call option,TUNE,tune) \
	  $(if $(filter mean weighted stack,$(HOW)),$(call option,DECODER,decoder))
endif

sweep: ASKED = $(GRIDS)
sweep: checked features  ## train HEAD with every combination of GRID; save the best as RUN
	@$(PY) -m heads sweep $(HEADS) $(GRIDS) $(call option,SCHEDULER,scheduler)
	$(call next,make submit $(call SET_NOW,GRID BY))

choose: CHECKED = $(if $(filter-out file,$(origin HEAD)),$(call list,HEAD)) $(CHOICES)
choose: checked features  ## score every HEAD with every DECODER in one table, by folds of train
	@$(PY) -m heads choose $(CHOICES) $(if $(filter-out file,$(origin HEAD)),--heads $(call list,HEAD)) \
	  $(call option,SCHEDULER,scheduler)

SEARCH   = --store $(call text,STORE) --data $(call text,DATA) --out $(call text,RUN) --budget $(call text,BUDGET) \
           $(call option,TRAIN,train)
best: export ASKED = --edition $(call text,EDITION)
best: CHECKED = $(SEARCH) $(ASKED)
best: checked features  ## search heads, parameters, features and ensembles for BUDGET; save the best as RUN with its submission
	@$(PY) -m heads best $(SEARCH) $(call option,SCHEDULER,scheduler)
	@$(PY) -m heads predict $(call text,RUN) --store $(call text,STORE) $(TASK)
	$(call next,$(LOOK))

submit: head  ## write the submission of RUN for test, checked by the rules of EDITION
	@$(PY) -m heads predict $(call text,RUN) --store $(call text,STORE) $(TASK)
	$(call next,$(LOOK))

ensemble: setup  ## join RUNS by HOW into RUN, and write its submission
	@$(PY) -m heads ensemble $(call list,RUNS) --out $(call text,RUN) $(call option,HOW,how) \
	  $(call option,DECODER,decoder) $(call option,TUNE,tune) $(NESTS)
	@$(PY) -m heads predict $(call text,RUN) $(TASK)
	$(call next,$(LOOK))

predict: setup  ## predict the concepts of IMAGES with RUN; OUT=predictions.csv has all of them
	@$(PY) -m show predict $(call text,RUN) $(call list,IMAGES) $(call option,OUT,out) $(call option,WORKERS,workers)

explain: setup  ## draw where in IMAGES RUN sees its concepts, a picture per image in OUT
	@$(PY) -m show explain $(call text,RUN) $(call list,IMAGES) $(call option,OUT,out) \
	  $(if $(CONCEPTS),--concepts $(call list,CONCEPTS))

report: setup  ## write RUN/report.html: scores, concepts, figures, images, on one page
	@$(PY) -m show report $(call text,RUN) $(NAMED_STORE) $(call option,HEAT_MAPS,heat-maps) \
	  $(if $(AGAINST),--against $(call list,AGAINST))

export: setup  ## write RUN as one Keras model, image in, scores out: RUN/model.keras
	@$(PY) -m heads export $(call text,RUN) $(NAMED_STORE)

# Some shells put the name of the machine into HOST, which would open the page to others.
serve: setup  ## serve a page on this machine on which images are dropped to see what RUN predicts, and where
	@$(PY) -m show serve $(call text,RUN) $(if $(filter command,$(origin HOST)),$(call option,HOST,host)) $(call option,PORT,port)

table: setup $(DRAWN)  ## run RECIPES (all) on DATA; print published scores beside ours
	@for recipe in $(RECIPES); do $(MAKE) --no-print-directory head RECIPE=$$recipe || exit; done
	@$(PY) -m heads table recipes $(call quote,runs/$(NAME))

runs: setup  ## list all finished runs with their scores, the best first
	@$(PY) -m heads runs $(call list,RUNS)

test: setup  ## run the tests, one process per core (about 5 minutes on two)
	@$(PY) -m pytest -q -n auto --dist worksteal -m 'not long'

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
	@$(PY) benchmarks/serve.py

bench-full: setup  ## 97,317 images from drawing to submission, then 1,000,000 rows, with peak memory (hours)
	@$(PY) benchmarks/full.py

lint: setup  ## check style and types
	@$(PY) -m ruff check --quiet $(RUFF) $(RULES) .
	@$(PY) -m ruff format --quiet $(RUFF) --check --diff .
	@$(PY) -m mypy --no-error-summary

check: lint test  ## both
