# What is run by hand. `just check` is what CI runs, without the examples.

# Everything that must hold before a change is taken in.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    cargo deny --workspace check

# All tests.
test:
    cargo test --workspace --locked

# Every example in front of a real `scale0 up`.
examples:
    cargo build --workspace --bins --examples --locked
    bash .ci/examples

# What a request costs in each room. Arguments are criterion's; see benches/README.md.
bench *arguments:
    cargo bench -p scale0-benches --locked -- {{ arguments }}

# The sockets at the edge of the high-water mark, `times` as long as in `just test`.
soak times="20":
    SCALE0_SOAK={{ times }} cargo test -p scale0-transport --release --lib -- --nocapture soak

# The one crate with `unsafe`, and libzmq below it, under AddressSanitizer.
asan:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CXXFLAGS=-fsanitize=address CARGO_TARGET_DIR=target/asan \
        cargo test -p scale0-transport --target x86_64-unknown-linux-gnu --lib --tests

# A crate in a workspace of its own links ours: with its two lines of [patch], and without.
outside:
    cargo test -p scale0-transport --test outside_the_workspace -- --ignored

# Sites in virtual time, seed after seed, until so many steps are taken. A failure prints how to replay it.
simulate steps="20000000":
    SCALE0_SIM_STEPS={{ steps }} cargo test -p scale0-simulation --test sites --release whatever_breaks -- --nocapture

# One seed of that simulation again.
replay seed:
    SCALE0_SEED={{ seed }} cargo test -p scale0-simulation --test sites --release whatever_breaks -- --nocapture

# One seed of the flights' simulation again.
replay-flights seed:
    FLIGHTS_SEED={{ seed }} cargo test -p scale0-cache --test flights simulation -- --nocapture

# A site of real processes under load: killed, stopped, cut off, overloaded. `just trial --help` says which trials there are.
trial *arguments:
    cargo build --release --locked -p scale0 -p scale0-trials
    target/release/scale0-trials {{ arguments }}

# A fuzzer, for hours: `message` in wire; `fields`, `metadata`, `purges`, `segments` in cache; `broker`, `lane`, `session` in simulation.
# Needs cargo-fuzz; see the README.md in each crate's `fuzz`.
fuzz target hours="1":
    #!/usr/bin/env bash
    set -euo pipefail
    case {{ target }} in
        message) folder=wire seeds=corpus options=(-max_len=8192) ;;
        fields) folder=cache seeds=corpus/fields options=() ;;
        metadata | purges | segments) folder=cache seeds=corpus/records options=() ;;
        broker | lane | session) folder=simulation seeds=corpus/{{ target }} options=(-max_len=8192) ;;
        *) echo "no fuzzer is called {{ target }}" >&2; exit 2 ;;
    esac
    cd $folder
    mkdir -p fuzz/found/{{ target }}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{ target }} fuzz/found/{{ target }} fuzz/$seeds -- \
        "${options[@]}" -max_total_time=$(({{ hours }} * 3600))

# The golden messages, read and written by a second implementation.
vectors:
    python3 wire/vectors/check.py
