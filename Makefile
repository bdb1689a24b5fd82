# Shortcuts. Everything works without make, too: each line is the command.
.PHONY: check fast test test-postgres full soak bench cluster-test
FAST = tests/contract tests/gitstore tests/sync tests/upgrade tests/test_documents.py tests/test_house.py
POSTGRES = tests/sync tests/webhooks tests/stories/test_poolers.py -m "not soak"

check:  ## linters and types
	uv run ruff check .
	uv run ruff format --check .
	uv run mypy

fast:  ## the core, the rows, every action through every door, and the documents; no service is started
	uv run pytest -m "not slow and not soak" $(FAST)

test: check  ## the whole suite
	uv run pytest

test-postgres:  ## the rows on each Postgres that is installed: Debian's 15, and 16 and 18 of the package
	for programs in $$(uv run python -m tests.postgres_server); do \
		echo "$$programs"; \
		GITSTORE_TEST_POSTGRES=$$programs uv run pytest $(POSTGRES) || exit 1; \
	done

full: check  ## the whole suite, with every example of the property tests
	uv run pytest --hypothesis-profile=full

soak:  ## long sequences: kills, crowds and corpora, minutes to hours
	uv run pytest -m soak -n 0

cluster-test:  ## three nodes on a replicated volume, under faults; needs root, GlusterFS, HAProxy and PgBouncer
	uv run pytest -m soak -n 0 -s tests/cluster

bench:  ## one table: gitstore beside Flask on Postgres and git http-backend, with the bar of each figure
	uv run python -m bench
