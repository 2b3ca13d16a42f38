//! A process under `strace`, and what it did to a folder and said in a file, in the order of the system calls. A call
//! that could change the folder in a way not known here is a failure: nothing is overlooked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every call that changes files or makes them durable; `?` spares those that this processor does not have.
const CALLS: &str = "trace=?open,openat,?openat2,?creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,\
    fallocate,fsync,fdatasync,sync_file_range,syncfs,msync,mmap,?rename,renameat,renameat2,?unlink,unlinkat,?link,linkat,\
    ?symlink,symlinkat,?mkdir,mkdirat,?rmdir,?sendfile,copy_file_range,splice,io_uring_setup,io_uring_enter";
/// No single write is longer.
const STRING_BYTES_MAX: &str = "16777216";

/// A step of the traced process. Changes and words count from their beginning on, a sync only from its end: what is
/// under way may have happened or not.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    /// Lines of the trace at which the call began and ended.
    pub(crate) began: usize,
    pub(crate) ended: usize,
}

#[derive(Debug)]
pub(crate) enum What {
    Write {
        file: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    Resize {
        file: PathBuf,
        length: u64,
    },
    /// A file, or a folder, that was not there.
    Make {
        path: PathBuf,
        folder: bool,
    },
    Remove {
        path: PathBuf,
    },
    /// A file's contents, or the names in a folder. After a failed one the system takes the changes for written, and no
    /// later sync writes them (Rebello and others, "Can Applications Recover from fsync Failures?", 2020).
    Sync {
        path: PathBuf,
        failed: bool,
    },
    /// A line in the file of words.
    Say(String),
}

/// What is traced, and where to.
pub(crate) struct Tracer<'a> {
    /// The folder below which changes matter.
    pub(crate) root: &'a Path,
    /// The file in which the process gives its word.
    pub(crate) word: &'a Path,
    /// The output of `strace`; several runs follow each other in it.
    pub(crate) output: &'a Path,
}

impl Tracer<'_> {
    /// Runs the program to its end.
    ///
    /// `faults` are what the system refuses to it, as `strace --inject` has them.
    pub(crate) fn run(&self, program: &Path, args: &[String], planted: Option<&str>, faults: &[String]) {
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "--seccomp-bpf",
            "-y",
            "-xx",
            "-A",
            "-s",
            STRING_BYTES_MAX,
            "-e",
            CALLS,
            "-e",
            "signal=none",
        ]);
        command.args(faults.iter().map(|fault| format!("--inject={fault}")));
        command.arg("-o").arg(self.output).arg(program).args(args).env_clear();
        if let Some(fault) = planted {
            command.env("PLANTED_FAULT", fault);
        }
        let ended =
            command.stdin(Stdio::null()).output().expect("`strace` is missing; scripts/tools installs it");
        let said = String::from_utf8_lossy(&ended.stderr);
        // A store that cannot be opened on a broken disk says so.
        let refused = !faults.is_empty() && said.starts_with("write-store: ");
        assert!(ended.status.success() || refused, "{}: {said}", ended.status);
    }

    /// What all the runs did.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let text = std::fs::read_to_string(self.output).unwrap();
        let mut open: HashMap<&str, Call<'_>> = HashMap::new();
        let mut steps = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (process, rest) = line.split_once(' ').unwrap();
            let rest = rest.trim_start();
            if rest.starts_with("+++") || rest.starts_with("---") {
                continue;
            }
            let call = if let Some(resumed) = rest.strip_prefix("<... ") {
                let mut call = open.remove(process).unwrap();
                call.ended = at;
                call.result = result(resumed);
                call
            } else {
                let (name, args) = rest.split_once('(').unwrap();
                let call = Call { name, args, result: result(rest), began: at, ended: at };
                if let Some(args) = args.strip_suffix(" <unfinished ...>") {
                    open.insert(process, Call { args, ..call });
                    continue;
                }
                call
            };
            steps.extend(self.step(&call).map(|what| Step { what, began: call.began, ended: call.ended }));
        }
        // A process that ended in the middle of a call may have made it.
        let cut_off = open.into_values().filter(|call| !matches!(call.name, "fsync" | "fdatasync"));
        let end = text.lines().count();
        steps
            .extend(cut_off.filter_map(|call| {
                self.step(&call).map(|what| Step { what, began: call.began, ended: end })
            }));
        steps
            .sort_by_key(|step| if matches!(step.what, What::Sync { .. }) { step.ended } else { step.began });
        steps
    }

    /// Calls that failed because they were to.
    pub(crate) fn refused(&self) -> usize {
        std::fs::read_to_string(self.output).unwrap().matches(" (INJECTED)\n").count()
    }

    fn step(&self, call: &Call<'_>) -> Option<What> {
        let args: Vec<&str> = call.args.split(", ").collect();
        let failed = call.result.is_some_and(|result| result < 0);
        let ours = |path: &Path| {
            path.starts_with(self.root) && path != self.word && !path.to_string_lossy().ends_with("-shm")
        };
        let file = args.first().and_then(|arg| described(arg)).filter(|path| ours(path));
        match call.name {
            "write" if described(args[0]).is_some_and(|path| path == self.word) => {
                let text = String::from_utf8(unhex(args[1])).unwrap();
                Some(What::Say(text.trim_end().to_owned()))
            }
            "pwrite64" if !failed => file.map(|file| {
                let mut bytes = unhex(args[1]);
                // A process that is ended in the middle of it may write less.
                bytes.truncate(call.result.map_or(usize::MAX, |written| usize::try_from(written).unwrap()));
                What::Write { file, at: number(args[3]), bytes }
            }),
            "ftruncate" if !failed => file.map(|file| What::Resize { file, length: number(args[1]) }),
            "fsync" | "fdatasync" => file.map(|path| What::Sync { path, failed: call.result != Some(0) }),
            "openat" | "open" if !failed && call.args.contains("O_CREAT") => {
                let path = path_of(args.iter().find(|arg| arg.starts_with('"')).unwrap());
                assert!(!ours(&path) || !call.args.contains("O_TRUNC"), "an emptied file is not known here");
                ours(&path).then_some(What::Make { path, folder: false })
            }
            "mkdir" | "mkdirat" if !failed => {
                let path = path_of(args.iter().find(|arg| arg.starts_with('"')).unwrap());
                ours(&path).then_some(What::Make { path, folder: true })
            }
            "unlink" | "unlinkat" if !failed => {
                let path = path_of(args.iter().find(|arg| arg.starts_with('"')).unwrap());
                ours(&path).then_some(What::Remove { path })
            }
            "pwrite64" | "ftruncate" | "openat" | "open" | "mkdir" | "mkdirat" | "unlink" | "unlinkat" => {
                None
            }
            "mmap" => {
                let shared = call.args.contains("PROT_WRITE") && call.args.contains("MAP_SHARED");
                let mapped = args.get(4).and_then(|arg| described(arg)).filter(|path| ours(path));
                assert!(
                    !shared || mapped.is_none(),
                    "{mapped:?} is written through memory, which is not traced"
                );
                None
            }
            other => {
                let named = args.iter().any(|arg| arg.starts_with('"') && ours(&path_of(arg)));
                assert!(failed || (file.is_none() && !named), "`{other}` on the folder is not known here");
                None
            }
        }
    }
}

/// One line of the trace, or the two halves of one.
struct Call<'a> {
    name: &'a str,
    args: &'a str,
    /// `None` when the process ended before the call did.
    result: Option<i64>,
    began: usize,
    ended: usize,
}

fn result(line: &str) -> Option<i64> {
    let (_, result) = line.rsplit_once(" = ")?;
    let word = result.split([' ', '<']).next()?;
    word.parse().ok().or_else(|| word.starts_with("0x").then_some(0))
}

fn number(arg: &str) -> u64 {
    arg.split(')').next().unwrap().parse().unwrap()
}

/// The path in `3<path>`; none for a file that has lost its name.
fn described(arg: &str) -> Option<PathBuf> {
    let (_, path) = arg.split_once('<')?;
    let (path, rest) = path.split_once('>')?;
    (!rest.starts_with("(deleted)")).then(|| PathBuf::from(String::from_utf8(unhex(path)).unwrap()))
}

fn path_of(arg: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(unhex(arg)).unwrap())
}

/// The bytes of a string, all of which `strace` writes as `\x00`.
fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches('"');
    let digits = digits.split('"').next().unwrap_or_default().as_bytes();
    assert!(!text.ends_with("..."), "`strace` cut a string off");
    let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
    digits
        .chunks_exact(4)
        .map(|group| match group {
            [b'\\', b'x', high, low] => digit(*high) << 4 | digit(*low),
            _ => panic!("`strace` wrote {:?}", String::from_utf8_lossy(group)),
        })
        .collect()
}
