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

# The decoders on bytes that a fuzzer makes up. Needs cargo-fuzz; see wire/fuzz/README.md and cache/fuzz/README.md.
fuzz seconds="60":
    mkdir -p wire/fuzz/found
    cd wire && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none message fuzz/found fuzz/corpus -- -max_len=8192 -max_total_time={{ seconds }}
    mkdir -p cache/fuzz/found/fields cache/fuzz/found/records
    cd cache && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none fields fuzz/found/fields fuzz/corpus/fields -- -max_total_time={{ seconds }}
    cd cache && for target in metadata purges segments; do \
        RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $target fuzz/found/records fuzz/corpus/records -- -max_total_time={{ seconds }} || exit; \
    done

# The golden messages, read and written by a second implementation.
vectors:
    python3 wire/vectors/check.py
