# make run    set up, build, and train the built-in example under mpirun on all cores
# make test   set up, and run the whole test suite
# make check  formatting and lints          make bench   benchmarks of the kernels
# make test-hosts  the same weights on virtual hosts with slow links, and what comes of ranks that stand still or die there (root)
# make test-mpich  the same weights under MPICH
# make instructions  counts instructions against bench/instructions.tsv    make valgrind  kernels and layers under memcheck
# make test-prediction  what ddl scale --predict says of virtual hosts against what is measured (root)
# make test-storage  trains from HTTP, S3, Azure and HDFS servers that it installs, the same weights as locally
# make test-export  ONNX files in onnxruntime, which it installs, the same outputs as ddl's
# make fuzz   looks for input that breaks a parser, 10 minutes for each of the targets (scripts/fuzz, which says more)
# make setup  only install what is missing  make clean   remove what was built

SHELL := /bin/bash
RANKS ?= $(shell scripts/cores)
# The serial HDF5 on Debian and Ubuntu, even where libhdf5-openmpi-dev has taken over hdf5.pc.
DEBIAN_HDF5 := $(wildcard /usr/lib/*-linux-gnu/hdf5/serial)
ifndef HDF5_DIR
ifneq ($(DEBIAN_HDF5),)
export HDF5_DIR := $(firstword $(DEBIAN_HDF5))
endif
endif
# Open MPI refuses to run as root unless told twice.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif
# rustup installs here; a shell opened before that does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Exit code 77 of these scripts: not possible here, and they say why.
.PHONY: run test test-export test-storage test-hosts test-prediction test-mpich check instructions valgrind fuzz bench setup build clean
.DEFAULT_GOAL := run

run: build
	mpirun -n $(RANKS) ./target/release/ddl

test: setup
	cargo test --release --locked

test-hosts: build
	@for link in 1gbit 1gbit,2ms; do \
	  RATE=$$link scripts/same-weights hosts target/release/ddl || [ $$? = 77 ] || exit 1; done
	@scripts/test-waiting target/release/ddl || [ $$? = 77 ]

test-prediction: build
	@for link in 1gbit 200mbit 1gbit,2ms; do \
	  scripts/check-prediction target/release/ddl 2 $$link || [ $$? = 77 ] || exit 1; done

test-storage: build
	@scripts/test-storage target/release/ddl || [ $$? = 77 ]

test-export: setup
	@scripts/test-export || [ $$? = 77 ]

test-mpich: setup
	@if ! { command -v mpicc.mpich && command -v mpiexec.mpich; } > /dev/null; then \
	  echo "skipped: needs MPICH (apt-get install mpich libmpich-dev)"; exit; fi; \
	MPICC=mpicc.mpich CARGO_TARGET_DIR=target-mpich cargo build --release --locked && \
	scripts/same-weights mpich target-mpich/release/ddl

check: setup
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings

instructions: setup
	@scripts/instructions || [ $$? = 77 ]

# The AVX2 and portable paths: valgrind knows no AVX-512. It slows products down a hundred times, hence the few cases.
valgrind: setup
	@command -v valgrind > /dev/null || { echo "skipped: needs valgrind (apt-get install valgrind libc6-dbg)"; exit; }; \
	PROPTEST_CASES=3 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind --quiet --error-exitcode=9" \
	cargo test --release --locked --lib -- --test-threads=1 kernel:: arena:: layer::

fuzz: setup
	scripts/fuzz

bench: setup
	cargo bench --locked

build: setup
	cargo build --release --locked

setup:
	@scripts/setup

clean:
	cargo clean
