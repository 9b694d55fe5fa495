.PHONY: test test-all lint docs demo bench

test:            # what the README runs
	pytest -n auto

test-all: test   # and the tests that kill and restart real processes
	pytest -n auto -m process

lint:
	ruff format --check .
	ruff check .
	mypy
	lint-imports

docs:            # the site, in docs/site
	python docs/reference.py
	zensical build -f docs/zensical.toml --clean --strict

demo:
	ens demo

bench:           # blending, side by side with its peers on synthetic data; the other benchmarks say what they need
	pip install --quiet -e ".[benchmarks]"
	python benchmarks/blend.py --case mid
