.PHONY: test test-all lint demo bench

test:            # what the README runs
	pytest -n auto

test-all: test   # and the tests that kill and restart real processes
	pytest -n auto -m process

lint:
	ruff format --check .
	ruff check .
	mypy
	lint-imports

demo:
	ens demo

bench:           # blending, side by side with its peers on synthetic data; the other benchmarks say what they need
	pip install --quiet -e ".[benchmarks]"
	python benchmarks/blend.py --case mid
