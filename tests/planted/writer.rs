//! A process that writes to a store as many callers at once and says in a file what it began and what it was told is
//! durable, each with one system call. It judges nothing.

#[path = "../it/power/batches.rs"]
mod batches;

use std::error::Error;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tollgate::store::Store;

use self::batches::{Plan, STEPS_MAX};

/// Callers that write at once.
const CALLERS: u64 = 6;
/// Long enough for the store to do what it leaves for a quiet moment.
const QUIET: Duration = Duration::from_millis(400);
/// Pause after a refusal and between looks.
const PAUSE: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 100;
const ROWS_MAX: usize = 1_000_000;

/// One life of the writer.
struct Life {
    data: PathBuf,
    word: File,
    plan: Plan,
    life: u64,
    steps: u64,
    /// Whether it closes the store or ends in the middle of its work.
    closes: bool,
}

/// Arguments: data folder, file for its word, seed, number of the life, steps of each caller, `close` or `drop`.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let lived = Life::new(&args).and_then(|life| {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let lived = runtime.block_on(life.run());
        // Whatever a caller is in the middle of ends with the process.
        runtime.shutdown_background();
        lived
    });
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "write-store: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl Life {
    fn new(args: &[OsString]) -> Result<Self, Box<dyn Error>> {
        let [data, word, seed, life, steps, end] = args else {
            return Err("six arguments are needed".into());
        };
        let number = |text: &OsString| text.to_string_lossy().parse::<u64>();
        Ok(Self {
            data: data.into(),
            word: OpenOptions::new().create(true).append(true).open(word)?,
            plan: Plan::new(number(seed)?),
            life: number(life)?,
            steps: number(steps)?,
            closes: end == "close",
        })
    }

    async fn run(self) -> Result<(), Box<dyn Error>> {
        let store = Store::open(&self.data, batches::terms())?;
        self.say_what_is_shown(&store).await?;
        let (life, closes) = (Arc::new(self), store.clone());
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (life, store) = (Arc::clone(&life), store.clone());
            callers.spawn(async move { life.call(&store, caller).await.map_err(|error| error.to_string()) });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
            if !life.closes {
                return Ok(());
            }
        }
        closes.close().await;
        Ok(())
    }

    /// What a store shows is told to callers, so that it has to last like what was acknowledged.
    async fn say_what_is_shown(&self, store: &Store) -> Result<(), Box<dyn Error>> {
        let rows = store.audit_after(0, ROWS_MAX).await?;
        let shown = rows.iter().filter_map(|row| row.row.id.strip_prefix("aud_"));
        let text: String = shown.map(|number| format!(" {number}:0")).collect();
        self.say(&format!("acked{text}"))
    }

    async fn call(&self, store: &Store, caller: u64) -> Result<(), Box<dyn Error>> {
        for step in 0..self.steps {
            if step == self.steps / 2 {
                tokio::time::sleep(QUIET).await;
            }
            let number = (self.life * CALLERS + caller) * STEPS_MAX + step;
            self.say(&format!("begun {number}"))?;
            if let Some(row) = self.plan.lazy(number) {
                store.append_audit_lazily(row);
            }
            match store.commit(self.plan.batch(number)).await {
                Ok(receipt) => {
                    let position = receipt.events.first().map_or(0, |event| event.position);
                    self.say(&format!("acked {number}:{position}"))?;
                }
                Err(error) if error.certain_not_written() => {
                    self.say(&format!("refused {number}"))?;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => self.look(store, number).await?,
            }
        }
        Ok(())
    }

    /// What became of a batch that may or may not be stored.
    async fn look(&self, store: &Store, number: u64) -> Result<(), Box<dyn Error>> {
        let batch = self.plan.batch(number);
        for row in &batch.operations {
            for _ in 0..LOOKS_MAX {
                match store.operation(&row.hash).await {
                    Ok(Some(record)) if record == row.record => {
                        return self.say(&format!("acked {number}:0"));
                    }
                    Ok(_) => return self.say(&format!("refused {number}")),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
        Ok(())
    }

    /// One line, with one system call.
    fn say(&self, line: &str) -> Result<(), Box<dyn Error>> {
        Ok((&self.word).write_all(format!("{line}\n").as_bytes())?)
    }
}
