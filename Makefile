# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
# Both install what they need from the distribution, as root or with sudo, and say so.

.PHONY: demo test bench fmt clippy deny build clean

# Loses a primary region on real servers, shows how it is survived, and brings the workload home.
demo: ARGS ?=
demo:
	tests/install.sh demo
	cargo build --locked -p lifeboat -p lifeboat-chaos
	target/debug/chaos demo $(ARGS)

# Every test: tables, properties, goldens, real servers on loopback, repository rules.
test:
	tests/install.sh test
	tests/kubernetes.sh
	cargo build --locked --workspace --bins
	cargo test --locked --workspace --no-fail-fast

# Figures, ours beside the peers', in one run.
bench:
	tests/install.sh bench
	cargo build --locked --release --workspace --bins
	cargo bench --locked --workspace
	cargo run --locked --release -p lifeboat-postgres --example promote_trials 20
	target/release/chaos demo --runs 5
	target/release/chaos demo --runs 5 --sync --failover-only
	target/release/chaos demo --runs 5 --freeze --failover-only
	target/release/chaos demo --runs 5 --no-stonith --failover-only
	target/release/chaos switchover --runs 5
	target/release/chaos fence --runs 5 --no-stonith
	target/release/chaos simulate --seeds 20000
	target/release/chaos simulate --flaps --seeds 10000
	cargo run --locked --release -p lifeboat-lease --example latency

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --locked --workspace --all-targets -- -D warnings

deny:
	command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked
	cargo deny --all-features check bans licenses sources

build:
	cargo build --locked --release -p lifeboat

clean:
	cargo clean
