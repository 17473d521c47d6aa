# Names the commands; each is a script in ci/ and does all of its own set-up. Arguments: make test ARGS="python digests"
.PHONY: help demo test lint bench cuda gpu wheel conda release
.NOTPARALLEL:

help:
	@echo 'make demo    trains a small GPT three times and compares optimizer memory, time and loss'
	@echo 'make test    the whole test suite'
	@echo 'make lint    formatting, static checks, file lengths'
	@echo 'make bench   speed against torch and the limit of the memory'
	@echo 'make cuda    the libraries for CUDA 12 and 13; takes no toolkit and no GPU'
	@echo 'make wheel   the sdist and the wheel, in dist/, tested as users get them'
	@echo 'make conda   the conda packages, in dist/, tested as users get them'
	@echo 'make release VERSION=1.2.3   checks and builds all that is published; publishes nothing'
	@echo 'make gpu     tests and benchmark on the CUDA device that is here; offline'

demo test lint bench cuda gpu wheel conda:
	@ci/$@ $(ARGS)

release:
	@ci/release $(VERSION)
