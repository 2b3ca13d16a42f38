//! Checks where events come from and how long they stay.

use super::{Reader, parts};
use crate::config::{Events, EventsMode, Thin};
use crate::domain::limits::{EVENT_TYPE_CHARS_MAX, EVENTS_TYPES_MAX, SWEEP_PARTS_PER_DAY_MIN};

/// Most types of events that a sweep asks for.
const SWEEP_TYPES_MAX: usize = 500;
/// Least overlap of sweeps that are the only way in, in seconds: an event that Stripe's list shows late is found by nothing
/// else.
const POLL_OVERLAP_S_MIN: u64 = 60;

impl Reader<'_> {
    pub(super) fn events(&mut self) -> Option<Events> {
        let mode = self.required("events.mode", parse_mode);
        let retention_days = self.days("events.retention_days");
        let retention_bytes = self.bytes("events.retention_bytes");
        let retention_hard_days = self.days("events.retention_hard_days");
        let sweep_every = self.seconds("events.sweep_every_s");
        let sweep_overlap = self.seconds("events.sweep_overlap_s");
        let sweep_types = self.optional("events.sweep_types", parse_types);
        let sweep_reads_per_day = self.count("events.sweep_reads_per_day");
        let thin = self.required("events.thin", parse_thin);
        let memory_bytes = self.bytes("events.memory_bytes");
        if let Some((days, hard_days)) = retention_days.zip(retention_hard_days)
            && hard_days < days
        {
            let what = format!("is {hard_days}, less than `events.retention_days`, which is {days}");
            self.faults.add("events.retention_hard_days", what, "");
        }
        if let (Some(EventsMode::Poll), Some(overlap)) = (mode, sweep_overlap)
            && overlap.as_secs() < POLL_OVERLAP_S_MIN
        {
            let what = format!(
                "is {}, and with `events.mode = \"poll\"` the least is {POLL_OVERLAP_S_MIN}",
                overlap.as_secs()
            );
            self.faults.add("events.sweep_overlap_s", what, "");
        }
        if let Some((reads, types)) = sweep_reads_per_day.zip(sweep_types.as_ref()) {
            let questions = types.as_ref().map_or(1, |types| types.len().div_ceil(EVENTS_TYPES_MAX).max(1));
            let least = SWEEP_PARTS_PER_DAY_MIN * questions;
            if (1..least).contains(&reads) {
                let what = format!("is {reads}, too few to get on with: the least is {least}");
                self.faults.add("events.sweep_reads_per_day", what, "raise it, or set it to 0 for no sweeps");
            }
        }
        Some(Events {
            mode: mode?,
            retention_days: retention_days?,
            retention_bytes: retention_bytes?,
            retention_hard_days: retention_hard_days?,
            sweep_every: sweep_every?,
            sweep_overlap: sweep_overlap?,
            sweep_types: sweep_types?.unwrap_or_default(),
            sweep_reads_per_day: sweep_reads_per_day?,
            thin: thin?,
            memory_bytes: usize::try_from(memory_bytes?).unwrap_or(usize::MAX),
        })
    }
}

fn parse_mode(text: &str) -> Result<EventsMode, String> {
    match text {
        "webhook" => Ok(EventsMode::Webhook),
        "poll" => Ok(EventsMode::Poll),
        _ => Err(format!("`{text}` is neither `webhook` nor `poll`")),
    }
}

fn parse_thin(text: &str) -> Result<Thin, String> {
    match text {
        "as_delivered" => Ok(Thin::AsDelivered),
        "fetch" => Ok(Thin::Fetch),
        _ => Err(format!("`{text}` is neither `as_delivered` nor `fetch`")),
    }
}

/// Types as Stripe names them; it takes no wildcards (docs.stripe.com/api/events/list).
fn parse_types(text: &str) -> Result<Vec<String>, String> {
    let types: Vec<String> = parts(text).filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    let sound = |kind: &str| {
        kind.len() <= EVENT_TYPE_CHARS_MAX
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
    };
    match types.iter().find(|kind| !sound(kind)) {
        Some(kind) => Err(format!("`{kind}` is not a type of events such as `charge.refunded`")),
        None if types.len() > SWEEP_TYPES_MAX => {
            Err(format!("names {} types, the most is {SWEEP_TYPES_MAX}", types.len()))
        }
        None => Ok(types),
    }
}
