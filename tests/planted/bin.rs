//! The gateway built with its deliberate faults, for the proofs' self-tests; nobody ships it.

fn main() -> std::process::ExitCode {
    tollgate::cli::main(std::env::args_os().collect())
}
