# `make` lists the targets. Each one that needs Python makes .venv first and works by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup repro test check bench-data bench-scale bench-kills bench-train bench-finetune bench-quality bench-evaluation bench-retrieval bench-serve bench exp queue preset align pin crawl ingest chat serve adapters licences lineage push-hub serve-vllm push pull unlock graph clean

PYTHON ?= python3
BIN := .venv/bin
# Built without the vision part, which Smelt does not use: two thirds of the time.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export DVC_NO_ANALYTICS := 1
# dvc.yaml says `python`: the one of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)
GROUPS := pipeline data completion train mlx sinks eval export rag serve report dev

help: ## list the targets
	@echo "Smelt: from a folder of documents to a small language model you own"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo "Machine-local settings (they never change a result): SMELT_DEVICE=cpu|cuda|rocm|mps|mlx  SMELT_MICRO_BATCH=auto|ROWS  SMELT_COMPILE=0|1  SMELT_SINKS=tensorboard,wandb,trackio  SMELT_JUDGE=0|1  SMELT_QDRANT=URL  SMELT_POSTGRES=URL  SMELT_COLLECTION=NAME  SMELT_WORKERS=N  SMELT_WHEELS=DIR  SMELT_HUB=DIR  SMELT_RESPONSES=DIR  SMELT_REQUESTS=N  SMELT_EXECUTOR=local|ray|slurm  SMELT_LAUNCHER='torchrun --nproc-per-node N'  SMELT_SHARDING=ddp|fsdp  SMELT_UNSLOTH=0|1  SMELT_API_KEYS=KEY,KEY"

# The stamp names what was installed: a changed pin installs again, anything else does not.
setup: $(BIN)/.installed ## make .venv with the pinned dependencies

$(BIN)/.installed: pyproject.toml constraints.txt
	@echo "Installing into .venv: 5 to 8 minutes the first time, most of it compiling llama.cpp"
	@$(PYTHON) -c 'import sys; sys.exit("Smelt needs Python 3.11 or newer, try: make PYTHON=python3.12 setup" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(GROUPS:%=--group %)
	@touch $@

repro: setup ## run the whole line, or what changed of it: documents -> models/export, reports/index.html
	@$(BIN)/python -m lib.inputs
	$(BIN)/dvc repro
	@echo "Done. Open reports/index.html, or talk to the model: make chat"

# Two at a time; threads that wait for each other must then not do so actively.
test: setup check ## run ruff and all tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup ## run ruff alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench-data: setup ## measure the cleaning chain beside datatrove's own blocks (4 minutes on two cores)
	$(BIN)/python -m tests.benchmarks.clean

bench-scale: setup ## measure whether the data stages' memory stays constant: documents of the default, 1 and 10 times
	$(BIN)/python -m tests.benchmarks.scale $(ARGS)

bench-train: setup ## measure how fast training is beside transformers, alternating (6 minutes on two cores)
	$(BIN)/python -m tests.benchmarks.train $(ARGS)

bench-finetune: setup ## measure LoRA's speed beside trl's, alternating, and QLoRA's memory (5 minutes on two cores)
	$(BIN)/python -m tests.benchmarks.finetune $(ARGS)

bench-quality: setup ## measure what a time budget reaches beside a plain recipe (35 minutes; ARGS="--seeds 1": 12)
	$(BIN)/python -m tests.benchmarks.quality $(ARGS)

bench-evaluation: setup ## measure SmolLM2 on public benchmarks beside its published scores (ARGS="--limit 400": 30 minutes)
	$(BIN)/python -m tests.benchmarks.evaluation $(ARGS)

bench-retrieval: setup ## measure an index of 10,000 passages: building, searching in each store, what is found (6 minutes)
	$(BIN)/python -m tests.benchmarks.retrieval $(ARGS)

bench-serve: setup ## load the server with 1,000 mixed requests of 32 clients, and measure its overhead
	$(BIN)/python -m tests.benchmarks.serve $(ARGS)

bench: bench-data bench-scale bench-train bench-finetune bench-quality bench-evaluation bench-retrieval bench-serve bench-kills ## all of them: an hour

bench-kills: setup ## kill 25 training runs at random moments: do they end in the same bits? (10 minutes on two cores)
	$(BIN)/python -m tests.benchmarks.kills $(ARGS)

exp: setup ## run an experiment: make exp SET="pretrain.learning_rate=2e-3 seed=2" [TEMP=1 | QUEUE=1]
	@untracked=$$(git ls-files --others --exclude-standard -- lib stages dvc.yaml params.yaml); test -z "$$untracked" || \
	  { echo "Not in git, so they would be missing from the experiment: $$untracked"; echo "git add them first"; exit 1; }
	@test -z "$(TEMP)$(QUEUE)" || git diff --quiet -- lib stages || echo "Note: unstaged edits of lib/ and stages/ are part of this experiment"
	@$(BIN)/python -m lib.inputs $(if $(TEMP)$(QUEUE),--crawled)
	@own=(); while IFS= read -r -d '' file; do own+=(--copy-paths "$$file"); done \
	  < <(find data/internal data/pairs data/web -mindepth 1 -maxdepth 1 ! -name .gitkeep -print0); \
	test -n "$(TEMP)$(QUEUE)" || own=(); \
	set -x; $(BIN)/dvc exp run $(if $(QUEUE),--queue)$(if $(TEMP),--temp) "$${own[@]}" $(foreach value,$(SET),-S $(value))

compare: setup ## compare two runs item by item: make compare A=main B=workspace, or names of experiments [ARGS="--model chat --gate"]
	@test -n "$(A)" -a -n "$(B)" || { echo "Say which: make compare A=main B=workspace (revisions, branches, experiments)"; exit 1; }
	@$(BIN)/python -m lib.compare "$(A)" "$(B)" $(ARGS)

queue: setup ## run the experiments that QUEUE=1 put off, in the background
	@$(BIN)/dvc queue start
	@echo "Follow them with: $(BIN)/dvc queue status, $(BIN)/dvc exp show"

preset: setup ## lay presets over params.yaml: make preset NAME=smoke, or NAME="3b 2x5090"
	@$(BIN)/python -m lib.preset $(NAME)

align: setup ## after adding a source by hand: list it in dvc.yaml
	@$(BIN)/python -m lib.align

pin: setup ## write the current commit of datasets of a hub into params.yaml: make pin [NAME=source]
	@$(BIN)/python -m lib.pin $(NAME)

crawl: setup ## ask for the pages of a web source again, and keep those that changed: make crawl SOURCE=handbook
	@$(BIN)/python -m lib.sources.crawl $(SOURCE)

ingest: setup ## bring the index up to date with your folders, without training: make ingest [SOURCES="internal"]
	@$(BIN)/python -m lib.ingest $(SOURCES)

chat: setup ## talk to the exported model in the terminal; /docs answers from the documents, with citations
	@$(BIN)/python -m lib.serve.terminal $(ARGS)

serve: setup ## serve the model to this machine: a page to chat with, and the OpenAI API for any client [ARGS="--port 8001"]
	@exec $(BIN)/python -m lib.serve.server $(ARGS)

adapters: setup ## ask several adapters on one base: make adapters ARGS="models/base a=FOLDER b=FOLDER 'QUESTION'"
	@$(BIN)/python -m lib.adapters $(ARGS)

licences: setup ## print the licence of every source, and whether it may be trained on
	@$(BIN)/python -m lib.licences

lineage: setup ## say what made a file: make lineage MODEL=models/export/gguf/smelt-tiny-Q8_0.gguf
	@$(BIN)/python -m lib.lineage $(MODEL) $(ARGS)

push-hub: setup ## upload an export to a private repository of a hub: make push-hub REPO=me/model [MODEL=models/export/gguf]
	@test -n "$(REPO)" || { echo "Say where to: make push-hub REPO=me/model, with a token in HF_TOKEN"; exit 1; }
	@$(BIN)/python -m lib.push "$(REPO)" $(MODEL)

serve-vllm: setup ## serve models/export/hf with vLLM, which is installed apart (see lib/vllm.py) [PORT=8000]
	@$(BIN)/python -m lib.vllm $(if $(PORT),--port $(PORT)) $(ARGS)

push: setup ## send models, data and reports to the DVC remote
	$(BIN)/dvc push

pull: setup ## fetch what the remote has of this commit
	$(BIN)/dvc pull --allow-missing

unlock: setup ## mend DVC's lock after a crash
	@if pgrep -f '[b]in/dvc ' >/dev/null; then echo "A dvc process is running (pgrep -fa 'bin/dvc '); end it first"; exit 1; fi
	rm -f .dvc/tmp/rwlock .dvc/tmp/rwlock.lock .dvc/tmp/lock

graph: setup ## print the stages as a Mermaid graph
	@$(BIN)/dvc dag --mermaid --collapse-foreach-matrix

clean: ## remove checkpoints of unfinished runs and caches of tools; results stay
	rm -rf .scratch .pytest_cache .ruff_cache
