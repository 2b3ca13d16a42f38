//! Tells of the event log as a whole. What it holds is the feed's business.

use super::call::Gateway;
use super::context::Context;
use super::events::fault;
use super::fault::Fault;
use super::operation::instant;
use crate::config::Events;
use crate::contract::Params;
use crate::domain::limits::EVENT_MARK_DAYS_MIN;
use crate::proto::v1::{FeedPlace, GetFeedRequest, GetFeedResponse, Retention};

const GET: &str = "tollgate.v1.FeedService/GetFeed";

impl Gateway {
    /// How far back the log reaches, how far it goes and how long events stay.
    ///
    /// # Errors
    /// UNAVAILABLE when the store cannot be read.
    pub async fn feed_status(
        &self,
        context: &Context,
        request: &GetFeedRequest,
    ) -> Result<GetFeedResponse, Fault> {
        let read = async {
            let account = self.accounts.named(&request.account)?;
            let span = self.feed.span().await.map_err(|error| fault(&error))?;
            let place = |position, beside, received_ms| FeedPlace {
                position,
                cursor: self.feed.cursor(beside).encode(),
                received: instant(received_ms),
            };
            Ok(GetFeedResponse {
                oldest: span
                    .map(|span| place(span.oldest, span.oldest.saturating_sub(1), span.oldest_received_ms)),
                head: span.map(|span| place(span.newest, span.newest, span.newest_received_ms)),
                bytes: span.map(|span| span.bytes).unwrap_or_default(),
                retention: Some(retention(&self.events)),
                completeness: self.completeness(account.log_alias()),
                call: None,
            })
        };
        let (answer, call) =
            self.read_own(context, (GET, Some(&request.account)), Params::default(), read).await?;
        Ok(GetFeedResponse { call: Some(call), ..answer })
    }
}

fn retention(events: &Events) -> Retention {
    Retention {
        days: events.retention_days,
        bytes: events.retention_bytes,
        hard_days: events.retention_hard_days,
        mark_days: EVENT_MARK_DAYS_MIN,
    }
}
