//! Asks Stripe whose keys are, many at once and all within one time. What follows from the answers is not its business.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ACCOUNT_WAIT;
use crate::domain::account::AccountHeader;
use crate::domain::limits::KEYS_ASKED_AT_ONCE_MAX;
use crate::stripe::{AccountError, Client, OwnAccount, Trouble};

/// Which account the one key of this client acts on under this header.
#[derive(Debug)]
pub(in crate::server) struct Question {
    pub(in crate::server) client: Client,
    pub(in crate::server) header: AccountHeader,
}

/// The answers, in the order of the questions. One that is silent takes no time from the others, and whoever stops waiting
/// stops the asking.
pub(in crate::server) async fn whose(questions: Vec<Question>) -> Vec<Result<OwnAccount, AccountError>> {
    let deadline = Instant::now() + ACCOUNT_WAIT;
    let turns = Arc::new(Semaphore::new(KEYS_ASKED_AT_ONCE_MAX));
    let mut told = vec![Err(AccountError::NoAnswer(Trouble::Timeout)); questions.len()];
    let mut asking = JoinSet::new();
    for (place, Question { client, header }) in questions.into_iter().enumerate() {
        let turns = Arc::clone(&turns);
        asking.spawn(async move {
            let _turn = turns.acquire().await;
            (place, client.own_account(&header, deadline).await)
        });
    }
    while let Some(answered) = asking.join_next().await {
        if let Ok((place, answer)) = answered
            && let Some(slot) = told.get_mut(place)
        {
            *slot = answer;
        }
    }
    told
}
