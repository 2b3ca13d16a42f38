//! The `tollgate` binary.

fn main() -> std::process::ExitCode {
    tollgate::cli::main(std::env::args_os().collect())
}
