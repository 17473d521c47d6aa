# Names the commands; each is a script in ci/ and does all of its set-up. Arguments: make test ARGS="python digests"
.PHONY: help demo test test-more lint docs bench laws cuda gpu wheel conda release
.NOTPARALLEL:

help:
	@echo 'make demo    trains a small GPT four times and compares optimizer memory, time and loss'
	@echo 'make test    runs the tests'
	@echo 'make test-more   runs those that take longest: sanitizers, emulated processors, CUDA libraries, fuzzer'
	@echo 'make lint    checks formatting, static rules and file lengths'
	@echo 'make docs    builds the site in build/docs/html; works offline'
	@echo 'make bench   measures speed, relative to torch and to the limit of the memory'
	@echo 'make laws    measures what 8-bit state does to training, here and in bitsandbytes, torchao and FlashOptim'
	@echo 'make cuda    builds the libraries for CUDA 12 and 13; needs no toolkit and no GPU'
	@echo 'make wheel   builds the sdist and the wheels in dist/, and tests them as users get them'
	@echo 'make conda   builds the conda packages in dist/, and tests them as users get them'
	@echo 'make release VERSION=1.2.3   checks and builds all files to publish; publishes nothing'
	@echo 'make gpu     runs tests and benchmark on the CUDA device of this machine; works offline'

demo test lint docs bench laws cuda gpu wheel conda:
	@ci/$@ $(ARGS)

test-more:
	@ci/test --more

release:
	@ci/release $(VERSION)
