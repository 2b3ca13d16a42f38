//! Budgets: how much a caller, or an order, may move within a window. What an operation takes follows from its entry; here
//! it is admitted before it is written, counted while it is written, and found again after a restart. The lock is never
//! held across a wait.

mod book;
mod pot;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::book::{Book, movements};
use super::Error;
use super::spend::{Claim, Taken};
use super::state::Record;
use crate::config::Budget;
use crate::contract::Spec;
use crate::domain::clock::{Moment, UnixMillis};
use crate::domain::limits::BUDGET_PAGE_MOVEMENTS;
use crate::domain::operation::{Mode, OperationHash};
use crate::domain::planted;
use crate::store::{self, Movement, Receipt, Store};

pub use self::book::Asker;

/// The budgets of one gateway. Clones share them.
#[derive(Clone, Debug)]
pub struct Budgets {
    store: Store,
    book: Arc<Mutex<Book>>,
    /// Held while an order is taken into memory: of two that do so at once, the later would miss what the other adds.
    pinning: Arc<tokio::sync::Mutex<()>>,
}

/// Why a change does not fit into a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The budget.
    pub budget: Budget,
    /// Who calls.
    pub caller: String,
    /// The amount that was asked for, in the smallest unit.
    pub asked: i64,
    /// Its currency; another one than the budget's where no budget of the caller is of that currency.
    pub currency: String,
    /// What was taken already, with what is held.
    pub spent: i128,
    /// What of it is held by operations without an outcome.
    pub held: i128,
    /// When there will be room, if nothing else comes; `None` when time alone makes none.
    pub frees_at_ms: Option<UnixMillis>,
}

/// How far one budget is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The budget.
    pub budget: Budget,
    /// Whose use it is; empty for an order's.
    pub caller: String,
    /// What was taken, with what is held.
    pub spent: i128,
    /// What of it is held by operations without an outcome.
    pub held: i128,
    /// When the window began, where it has a beginning.
    pub starts_ms: Option<UnixMillis>,
    /// When the window ends, where it has an end of its own.
    pub ends_ms: Option<UnixMillis>,
}

/// A change of what an operation takes, on its way into the store. To be closed with what became of the write; dropped, it
/// counts as uncertain.
#[derive(Debug)]
pub(super) struct Pending {
    budgets: Budgets,
    operation: OperationHash,
    before: Option<Taken>,
    after: Option<Taken>,
    /// Whether `after` is counted already.
    counted: bool,
    pinned: Option<[u8; 32]>,
    open: bool,
}

impl Budgets {
    pub(super) fn new(store: Store) -> Self {
        Self { store, book: Arc::default(), pinning: Arc::default() }
    }

    /// Sets what the budgets are from now on. What was taken from a budget of the same name still counts.
    pub fn replace(&self, budgets: Vec<Budget>) {
        self.book().set_rules(budgets);
    }

    /// Whether any budget speaks of what the caller moves by this RPC, `Service.Rpc`.
    #[must_use]
    pub fn covers(&self, caller: &str, groups: &[String], rpc: &str) -> bool {
        self.book().covers(caller, groups, rpc)
    }

    /// How far the budgets are used.
    ///
    /// # Errors
    /// When the order that is asked for cannot be read.
    pub async fn uses(&self, asker: Asker<'_>, now_ms: UnixMillis) -> Result<Vec<Use>, Error> {
        if let Some(order) = asker.order {
            self.pin(order).await?;
        }
        let mut book = self.book();
        let uses = book.uses(asker, now_ms);
        asker.order.into_iter().for_each(|order| book.unpin(order));
        Ok(uses)
    }

    /// How much of each budget the caller who used it most has used or holds, and the budget's limit, by its name; the
    /// budgets of orders are not among them.
    #[must_use]
    pub fn most_used(&self, now_ms: UnixMillis) -> BTreeMap<String, (i128, i64)> {
        let mut book = self.book();
        let mut most: BTreeMap<String, (i128, i64)> = BTreeMap::new();
        for mode in [Mode::Test, Mode::Live] {
            for Use { budget, spent, .. } in book.uses(Asker { caller: None, mode, order: None }, now_ms) {
                let (used, limit) = most.entry(budget.name).or_default();
                (*used, *limit) = ((*used).max(spent), budget.amount);
            }
        }
        most
    }

    /// Counts what is on record, once, before anything else is counted.
    pub(super) async fn recover(&self, now_ms: UnixMillis) -> Result<(), Error> {
        let mut after = (window::longest_ago(now_ms), 0);
        loop {
            let page =
                self.store.movements_after(after, BUDGET_PAGE_MOVEMENTS).await.map_err(Error::Unread)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = (last.movement.at_ms, last.sequence);
            let mut book = self.book();
            page.iter().for_each(|stored| book.replay(&stored.movement));
        }
    }

    /// Notes that an unresolved operation of an earlier process holds what it takes.
    pub(super) fn note_held(&self, operation: OperationHash, record: &Record) {
        if let Some(taken) = record.taken() {
            self.book().note_held(operation, &taken);
        }
    }

    /// What would become of a claim now.
    pub(super) async fn preview(
        &self,
        record: &Record,
        claim: &Claim,
        spec: &Spec,
        now: Moment,
    ) -> Result<Option<Exceeded>, Error> {
        let order = record.operation.order();
        self.pin(order).await?;
        let mut book = self.book();
        let admitted = book.admit(claim, &spec.name(), (record.operation.mode, order), now.wall_ms);
        book.unpin(order);
        Ok(admitted.err())
    }

    /// Admits a claim and counts it for the entry that is about to be written, in one step; the entry gets its spend.
    pub(super) async fn reserve(
        &self,
        record: &mut Record,
        claim: Claim,
        spec: &Spec,
        now: Moment,
    ) -> Result<Result<Pending, Exceeded>, Error> {
        let (operation, order) = (record.operation.hash(), record.operation.order());
        self.pin(order).await?;
        let mut pending = Pending::new(self, operation, Some(order));
        let mut book = self.book();
        match book.admit(&claim, &spec.name(), (record.operation.mode, order), now.wall_ms) {
            Ok(names) => record.spend = Some(claim.spend(names, now)),
            Err(exceeded) => {
                drop(book);
                pending.close(&Ok(Receipt::default()));
                return Ok(Err(exceeded));
            }
        }
        pending.after = record.taken();
        pending.counted = !planted::active("budget-not-reserved");
        if pending.counted {
            book.change(operation, None, pending.after.as_ref());
        }
        drop(book);
        Ok(Ok(pending))
    }

    /// Follows an operation from one entry to the next, whatever that does to a budget.
    pub(super) async fn follow(&self, before: Option<Taken>, record: &Record) -> Pending {
        let (operation, after) = (record.operation.hash(), record.taken());
        let mut pending = Pending::new(self, operation, None);
        if before == after {
            return pending;
        }
        if before.as_ref().map(|taken| &taken.spend) != after.as_ref().map(|taken| &taken.spend) {
            let order = record.operation.order();
            // What cannot be read now is read by whoever asks for the order next.
            pending.pinned = self.pin(order).await.is_ok().then_some(order);
        }
        // What takes more than before counts from now on, and what takes less once it is on record.
        pending.counted = before.is_none();
        if pending.counted {
            self.book().change(operation, None, after.as_ref());
        }
        (pending.before, pending.after) = (before, after);
        pending
    }

    /// Learns from an entry that was read what its operation takes for certain; nothing of it is being written.
    pub(super) fn reconcile(&self, operation: OperationHash, record: Option<&Record>) {
        self.book().reconcile(operation, record.and_then(Record::taken).as_ref());
    }

    /// Operations whose last write may or may not be stored.
    pub(super) fn doubted(&self) -> Vec<OperationHash> {
        self.book().doubted()
    }

    /// Takes an order into memory, or one more pin of it.
    async fn pin(&self, order: [u8; 32]) -> Result<(), Error> {
        let _alone = self.pinning.lock().await;
        if self.book().pin_again(order) {
            return Ok(());
        }
        let stored = self.store.movements_of(order).await.map_err(Error::Unread)?;
        let movements: Vec<Movement> = stored.into_iter().map(|stored| stored.movement).collect();
        self.book().pin(order, &movements);
        Ok(())
    }

    /// A panic elsewhere can leave it counting too much, never too little.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn new(budgets: &Budgets, operation: OperationHash, pinned: Option<[u8; 32]>) -> Self {
        let budgets = budgets.clone();
        Self { budgets, operation, before: None, after: None, counted: false, pinned, open: true }
    }

    /// What is to be written together with the entry.
    pub(super) fn movements(&self) -> Vec<Movement> {
        movements(self.operation, self.before.as_ref(), self.after.as_ref())
    }

    /// Says what became of the write.
    pub(super) fn close(mut self, written: &Result<Receipt, store::Error>) {
        self.open = false;
        let (before, after) = (self.before.take(), self.after.take());
        let mut book = self.budgets.book();
        match written {
            _ if before.is_none() && after.is_none() => {}
            Ok(_) if self.counted => {}
            Ok(_) => book.change(self.operation, before.as_ref(), after.as_ref()),
            Err(error) if error.certain_not_written() => {
                if self.counted {
                    book.change(self.operation, after.as_ref(), None);
                }
            }
            Err(_) => {
                let counted = if self.counted { after } else { before };
                book.doubt(self.operation, counted, self.pinned);
                return;
            }
        }
        self.pinned.into_iter().for_each(|order| book.unpin(order));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.open && (self.before.is_some() || self.after.is_some()) {
            let counted = if self.counted { self.after.take() } else { self.before.take() };
            self.budgets.book().doubt(self.operation, counted, self.pinned);
        }
    }
}

impl Exceeded {
    fn new(budget: Budget, claim: &Claim) -> Self {
        let Claim { caller, currency, amount, .. } = claim.clone();
        Self { budget, caller, asked: amount, currency, spent: 0, held: 0, frees_at_ms: None }
    }

    /// The rule that forbade the change, as the audit log names it.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("budget {}", self.budget.name)
    }

    /// What is left, in the smallest unit of the currency that was asked for.
    #[must_use]
    pub fn left(&self) -> i128 {
        if self.currency == self.budget.currency { left(&self.budget, self.spent) } else { 0 }
    }
}

impl Use {
    /// What is left, in the currency's smallest unit.
    #[must_use]
    pub fn left(&self) -> i128 {
        left(&self.budget, self.spent)
    }
}

/// A late outcome can have taken more than there was.
fn left(budget: &Budget, spent: i128) -> i128 {
    (i128::from(budget.amount) - spent).max(0)
}

#[cfg(test)]
mod tests;
