//! The gateway built with its deliberate faults, and a writer that drives its store alone, for the proofs; nobody ships
//! them.

mod writer;

fn main() -> std::process::ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|command| command == "write-store") {
        return writer::main(args.split_off(2));
    }
    tollgate::cli::main(args)
}
