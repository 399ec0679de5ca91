# Every target does all of its own set-up: a clean clone with Python >= 3.10 is enough.
#   make demo    the whole way on real data, into outputs/demo; goes on where it was cut off
#   make app     the page on the demo's checkpoint, opened in a browser (after `make demo`)
#   make test    the default test suite
#   make check   ruff, ruff format and mypy --strict
#   make faults  thousands of trials that try to break it, part by part, more than an hour (docs/reliability.md)
#   make dist    wheel and source distribution into dist/, installed and tried
#   make docs    the documentation as a site, into build/site (Python >= 3.11)
#   make bench   seconds an epoch, into outputs/bench (HFREC_BENCH_DATA=log.csv; synthetic without)
#   make bench-guard  fails where a step, a request or an import is 15 % slower than committed
#   make bench-peers  the same beside other libraries, into outputs/peers (HFREC_BENCH_DATA=log.csv; MovieLens-100K without)
#   make reproduce RECIPE=ml-100k-causal  a row of the results over three seeds (HFREC_DATA=folder of logs)
#   make universal  a checkpoint for any catalogue from open data, by the words of its titles (HFREC_RETAIL=folder of that log)

PYTHON ?= python3
EXTRAS ?= dev
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := outputs/demo

.DEFAULT_GOAL := test
.PHONY: demo test check faults dist docs bench bench-guard bench-peers reproduce universal clean

demo: $(STAMP)
	$(BIN)/hfrec demo --output_dir $(DEMO)

.PHONY: app
app: $(STAMP)
	@test -f $(DEMO)/demo_results.json || { echo "no finished demo in $(DEMO): run make demo first"; exit 1; }
	$(BIN)/hfrec app $(DEMO)/finetuned_l2sp --compare_with $(DEMO)/scratch --history_file $(DEMO)/target.parquet --labels "Fine-tuned with L2-SP" "From scratch" --open_browser

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.campaign

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip install -q -c constraints.txt build
	$(BIN)/python -m build
	$(BIN)/pytest -q -m slow tests/test_dist.py

docs: $(STAMP)
	test -x $(BIN)/mkdocs || $(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/train_speed.py --output_dir outputs/bench

bench-guard: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/guard.py

bench-peers: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_peers.py --output_dir outputs/peers

reproduce: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quality/reproduce.py $(RECIPE)
	$(BIN)/python benchmarks/quality/table.py

universal: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/universal.py --output_dir outputs/universal \
	  $(if $(HFREC_RETAIL),--retail_file $(HFREC_RETAIL)/interactions.csv.gz --retail_items $(HFREC_RETAIL)/items.csv.gz)

# The stamp is written last, so that an interrupted install is taken up again by the next call.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hfrec needs Python 3.10 or newer, found " + sys.version.split()[0] + ": call make with PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv build dist outputs .pytest_cache .mypy_cache .ruff_cache
