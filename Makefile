# Two commands from a clean clone: `make run` and `make test`. `make help` lists the rest.
help:
	@echo wip
