//! Whatever becomes of a write, never less is counted than is on record, and in the end exactly that.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::BudgetWindow;
use crate::contract;
use crate::domain::operation::{Mode, Operation};
use crate::ledger::fixtures::{NOW, at, operation, outgoing, record, refusal, success};
use crate::ledger::outcome::Settled;
use crate::ledger::state::State;
use crate::store::{Batch, Terms};

const LIMIT: i64 = 100;
const OPERATIONS: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    Reserve { operation: u8, amount: i64, written: Written },
    Settle { operation: u8, succeeded: bool, written: Written },
    Reconcile { operation: u8 },
}

/// What became of a write.
#[derive(Clone, Copy, Debug)]
enum Written {
    Surely,
    SurelyNot,
    /// Nobody can tell, but it did or did not happen.
    Perhaps(bool),
    /// The call broke off before it had an answer; it did or did not happen.
    Unheard(bool),
}

fn written() -> impl Strategy<Value = Written> {
    prop_oneof![
        4 => Just(Written::Surely),
        1 => Just(Written::SurelyNot),
        1 => any::<bool>().prop_map(Written::Perhaps),
        1 => any::<bool>().prop_map(Written::Unheard),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..OPERATIONS, 1..80_i64, written())
            .prop_map(|(operation, amount, written)| Step::Reserve { operation, amount, written }),
        3 => (0..OPERATIONS, any::<bool>(), written())
            .prop_map(|(operation, succeeded, written)| Step::Settle { operation, succeeded, written }),
        2 => (0..OPERATIONS).prop_map(|operation| Step::Reconcile { operation }),
    ]
}

fn rule(window: BudgetWindow) -> Budget {
    Budget {
        name: window.as_str().to_owned(),
        callers: Vec::new(),
        groups: Vec::new(),
        rpcs: Vec::new(),
        currency: "eur".to_owned(),
        window,
        amount: LIMIT,
    }
}

fn rules() -> Vec<Budget> {
    vec![rule(BudgetWindow::RollingDay), rule(BudgetWindow::Order)]
}

fn one(number: u8) -> Operation {
    Operation { operation_id: number.to_string(), ..operation() }
}

/// The budgets beside what is on record.
struct World {
    store: Store,
    budgets: Budgets,
    records: BTreeMap<u8, Record>,
    doubted: BTreeSet<u8>,
}

impl World {
    /// What the entries say.
    fn taken(&self) -> i128 {
        self.records.values().filter_map(Record::taken).map(|taken| i128::from(taken.spend.amount)).sum()
    }

    async fn counted(&self) -> Vec<i128> {
        let asker = Asker { caller: None, mode: Mode::Test, order: Some(operation().order()) };
        let uses = self.budgets.uses(asker, NOW).await.unwrap();
        uses.iter().map(|used| used.spent).collect()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Reconcile { operation } => self.reconcile(operation),
            Step::Reserve { operation, amount, written } => {
                let free = self.records.get(&operation).is_none_or(|record| record.taken().is_none());
                if !free || self.doubted.contains(&operation) {
                    return;
                }
                let state = State::Unknown { outgoing: outgoing("a=1"), conflict: false };
                let mut entry = Record { operation: one(operation), ..record(1, state) };
                let claim = Claim {
                    caller: "ada".to_owned(),
                    groups: Vec::new(),
                    currency: "eur".to_owned(),
                    amount,
                };
                let spec = contract::find("RefundService", "CreateRefund").unwrap();
                match self.budgets.reserve(&mut entry, claim, spec, at(0)).await.unwrap() {
                    Ok(pending) => self.write(pending, operation, entry, written).await,
                    Err(exceeded) => assert!(exceeded.spent + i128::from(amount) > i128::from(LIMIT)),
                }
            }
            Step::Settle { operation, succeeded, written } => {
                let held = self.records.get(&operation).filter(|record| record.unresolved());
                let Some(before) = held.filter(|_| !self.doubted.contains(&operation)) else { return };
                let settled =
                    if succeeded { Settled::Succeeded(success()) } else { Settled::Refused(refusal()) };
                let after = before.clone().moved_to(State::Settled(settled), at(1));
                let pending = self.budgets.follow(before.taken(), &after).await;
                self.write(pending, operation, after, written).await;
            }
        }
    }

    async fn write(&mut self, pending: Pending, operation: u8, entry: Record, written: Written) {
        let landed = match written {
            Written::Surely => true,
            Written::SurelyNot => false,
            Written::Perhaps(landed) | Written::Unheard(landed) => landed,
        };
        if landed {
            let movements = pending.movements();
            self.store.commit(Batch { movements, ..Batch::default() }).await.unwrap();
            self.records.insert(operation, entry);
        }
        match written {
            Written::Surely => pending.close(&Ok(Receipt::default())),
            Written::SurelyNot => pending.close(&Err(store::Error::Full)),
            Written::Perhaps(_) => pending.close(&Err(store::Error::Uncertain)),
            Written::Unheard(_) => drop(pending),
        }
        if let Written::Perhaps(_) | Written::Unheard(_) = written {
            self.doubted.insert(operation);
        }
    }

    fn reconcile(&mut self, operation: u8) {
        self.budgets.reconcile(one(operation).hash(), self.records.get(&operation));
        self.doubted.remove(&operation);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_counted_is_never_less_than_what_is_on_record(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path(), Terms::default()).unwrap();
            let budgets = Budgets::new(store.clone());
            budgets.replace(rules());
            let (records, doubted) = (BTreeMap::new(), BTreeSet::new());
            let mut world = World { store: store.clone(), budgets, records, doubted };
            for step in steps {
                world.take(step).await;
                let taken = world.taken();
                assert!(taken <= i128::from(LIMIT), "{taken} were admitted");
                for counted in world.counted().await {
                    assert!(counted >= taken, "{counted} are counted of {taken}");
                    assert!(!world.doubted.is_empty() || counted == taken, "{counted} are counted of {taken}");
                }
            }
            (0..OPERATIONS).for_each(|operation| world.reconcile(operation));
            assert!(world.counted().await.into_iter().all(|counted| counted == world.taken()));
            world.budgets = Budgets::new(store.clone());
            world.budgets.replace(rules());
            world.budgets.recover(NOW).await.unwrap();
            world.records.values().filter(|record| record.unresolved())
                .for_each(|record| world.budgets.note_held(record.operation.hash(), record));
            assert!(world.counted().await.into_iter().all(|counted| counted == world.taken()), "after a restart");
            store.close().await;
        });
    }
}
