//! How long a command waits for a stream's next sign of life before it takes the stream for broken.

use std::time::Duration;

use clap::Args;
use prost_reflect::DynamicMessage;
use tonic::{Status, Streaming};

use crate::cli::failure::Failure;

/// Three of the intervals at which a gateway sends checkpoints unless it is configured otherwise.
const SILENCE_S_MAX: u64 = 45;

/// The longest silence.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct Silence {
    /// Seconds after which a silent stream counts as broken; give three times the gateway's `feed.checkpoint_interval_s`
    #[arg(
        long = "silence",
        value_name = "SECONDS",
        default_value_t = SILENCE_S_MAX,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    seconds: u64,
}

impl Silence {
    /// The stream's next message; UNAVAILABLE, as for a connection that broke, when none comes in time.
    pub(in crate::cli) async fn next(
        self,
        items: &mut Streaming<DynamicMessage>,
    ) -> Result<Option<DynamicMessage>, Failure> {
        match tokio::time::timeout(Duration::from_secs(self.seconds), items.message()).await {
            Ok(item) => Ok(item?),
            Err(_) => Err(Status::unavailable(format!("silent for {} s", self.seconds)).into()),
        }
    }
}
