//! What stands against every budget, in memory: rules, sums, and what is about to change. It reads and writes no store.

use std::collections::{BTreeMap, HashMap};

use super::pot::Pot;
use super::window::{bounds, frees, minute, since};
use super::{Exceeded, Use};
use crate::config::{Budget, BudgetWindow};
use crate::domain::clock::UnixMillis;
use crate::domain::operation::{Mode, OperationHash};
use crate::domain::planted;
use crate::ledger::spend::{Claim, Taken};
use crate::store::Movement;

/// The budgets of one gateway and what was taken from them.
#[derive(Debug, Default)]
pub(super) struct Book {
    rules: Vec<Budget>,
    pots: BTreeMap<PotKey, Pot>,
    orders: HashMap<[u8; 32], Order>,
    /// What operations without an outcome hold.
    held: HashMap<OperationHash, Taken>,
    /// Operations whose last write may or may not be stored, with what is counted for them meanwhile.
    doubts: HashMap<OperationHash, Doubt>,
}

/// Budget, caller, mode and currency.
type PotKey = (String, String, Mode, String);

/// What was taken for one order, kept while changes of it are being written; the store knows it otherwise.
#[derive(Debug, Default)]
struct Order {
    pins: usize,
    /// By budget and currency.
    sums: BTreeMap<(String, String), i128>,
}

#[derive(Debug)]
struct Doubt {
    counted: Option<Taken>,
    /// The order's place in memory, if the doubt keeps it.
    pinned: Option<[u8; 32]>,
}

/// One stored movement.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Moved {
    operation: String,
    budgets: Vec<String>,
    caller: String,
    mode: Mode,
    currency: String,
    /// What was taken; less than nothing is what was given back.
    amount: i128,
}

/// Whose use of budgets is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The one caller to tell of; `None` for all of them.
    pub caller: Option<&'a str>,
    /// Test or live.
    pub mode: Mode,
    /// The order to tell of, as [`Operation::order`](crate::domain::operation::Operation::order) names it.
    pub order: Option<[u8; 32]>,
}

impl Book {
    pub(super) fn set_rules(&mut self, rules: Vec<Budget>) {
        self.rules = rules;
    }

    /// Whether any budget speaks of what the caller moves by this RPC.
    pub(super) fn covers(&self, caller: &str, groups: &[String], rpc: &str) -> bool {
        self.covering(caller, groups, rpc).next().is_some()
    }

    fn covering<'a>(
        &'a self,
        caller: &'a str,
        groups: &'a [String],
        rpc: &'a str,
    ) -> impl Iterator<Item = &'a Budget> {
        self.rules.iter().filter(move |rule| {
            let everybody = rule.callers.is_empty() && rule.groups.is_empty();
            let named = rule.callers.iter().any(|name| name == caller);
            let member = rule.groups.iter().any(|group| groups.contains(group));
            let by_rpc = rule.rpcs.is_empty() || rule.rpcs.iter().any(|one| one == rpc);
            (everybody || named || member) && by_rpc
        })
    }

    /// The names of the budgets that the claim counts against, if it fits into all of them.
    ///
    /// # Errors
    /// With the first budget that it does not fit into, or that is of another currency while none is of the claim's.
    pub(super) fn admit(
        &mut self,
        claim: &Claim,
        rpc: &str,
        (mode, order): (Mode, [u8; 32]),
        now_ms: UnixMillis,
    ) -> Result<Vec<String>, Exceeded> {
        let covering: Vec<Budget> = self.covering(&claim.caller, &claim.groups, rpc).cloned().collect();
        let (fitting, others): (Vec<_>, Vec<_>) =
            covering.into_iter().partition(|rule| rule.currency == claim.currency);
        if let (true, Some(other)) = (fitting.is_empty(), others.into_iter().next()) {
            return Err(Exceeded::new(other, claim));
        }
        for rule in &fitting {
            let (spent, held, frees_at_ms) = self.standing(rule, claim, (mode, order), now_ms);
            let fits = spent + i128::from(claim.amount) <= i128::from(rule.amount);
            if !fits {
                return Err(Exceeded { spent, held, frees_at_ms, ..Exceeded::new(rule.clone(), claim) });
            }
        }
        Ok(fitting.into_iter().map(|rule| rule.name).collect())
    }

    /// What stands against a budget for the claim: taken, held, and when there is room for the claim.
    fn standing(
        &mut self,
        rule: &Budget,
        claim: &Claim,
        (mode, order): (Mode, [u8; 32]),
        now_ms: UnixMillis,
    ) -> (i128, i128, Option<UnixMillis>) {
        if rule.window == BudgetWindow::Order {
            let key = (rule.name.clone(), rule.currency.clone());
            let spent = self.orders.get(&order).and_then(|order| order.sums.get(&key)).copied();
            return (spent.unwrap_or_default(), self.held_of_order(rule, order), None);
        }
        let key = (rule.name.clone(), claim.caller.clone(), mode, rule.currency.clone());
        let Some(pot) = self.pots.get_mut(&key) else { return (0, 0, None) };
        let from = since(rule.window, now_ms);
        let spent = pot.total(from);
        let excess = spent + i128::from(claim.amount) - i128::from(rule.amount);
        let frees_at = pot.frees(from, excess).and_then(|minute| frees(rule.window, minute, now_ms));
        (spent, pot.held(), frees_at.filter(|_| claim.amount <= rule.amount))
    }

    fn held_of_order(&self, rule: &Budget, order: [u8; 32]) -> i128 {
        let of_order = self.held.values().filter(|taken| {
            let Taken { spend, .. } = taken;
            taken.order == order && spend.currency == rule.currency && spend.budgets.contains(&rule.name)
        });
        of_order.map(|taken| i128::from(taken.spend.amount)).sum()
    }

    /// Counts `to` for an operation instead of `from`.
    pub(super) fn change(&mut self, operation: OperationHash, from: Option<&Taken>, to: Option<&Taken>) {
        for (taken, sign) in [(from, -1), (to, 1)] {
            let Some(taken) = taken else { continue };
            let amount = sign * i128::from(taken.spend.amount);
            let minute = minute(taken.spend.at_ms);
            for name in &taken.spend.budgets {
                let pot = self.pots.entry(taken.pot(name)).or_default();
                pot.add(minute, amount);
                match (taken.held, sign) {
                    (true, 1) => pot.hold(minute, operation, taken.spend.amount),
                    (true, _) => pot.release(minute, operation),
                    (false, _) => {}
                }
                if let Some(order) = self.orders.get_mut(&taken.order) {
                    *order.sums.entry((name.clone(), taken.spend.currency.clone())).or_default() += amount;
                }
            }
        }
        match to.filter(|taken| taken.held) {
            Some(taken) => drop(self.held.insert(operation, taken.clone())),
            None => drop(self.held.remove(&operation)),
        }
    }

    /// Notes that what an operation takes is held by it; the sums know it already.
    pub(super) fn note_held(&mut self, operation: OperationHash, taken: &Taken) {
        for name in &taken.spend.budgets {
            let pot = self.pots.entry(taken.pot(name)).or_default();
            pot.hold(minute(taken.spend.at_ms), operation, taken.spend.amount);
        }
        self.held.insert(operation, taken.clone());
    }

    /// Takes one more pin of an order that is in memory already.
    pub(super) fn pin_again(&mut self, order: [u8; 32]) -> bool {
        let found = self.orders.get_mut(&order);
        found.map(|order| order.pins += 1).is_some()
    }

    /// Takes an order into memory, as the store has it.
    pub(super) fn pin(&mut self, order: [u8; 32], movements: &[Movement]) {
        let mut sums = BTreeMap::new();
        for Moved { budgets, currency, amount, .. } in movements.iter().filter_map(read) {
            for budget in budgets {
                *sums.entry((budget, currency.clone())).or_default() += amount;
            }
        }
        self.orders.insert(order, Order { pins: 1, sums });
    }

    /// Gives a pin back; the last one lets the order go.
    pub(super) fn unpin(&mut self, order: [u8; 32]) {
        if let Some(found) = self.orders.get_mut(&order) {
            found.pins = found.pins.saturating_sub(1);
            if found.pins == 0 {
                self.orders.remove(&order);
            }
        }
    }

    /// Notes that the last write of an operation may or may not be stored, and that `counted` stands for it meanwhile.
    pub(super) fn doubt(
        &mut self,
        operation: OperationHash,
        counted: Option<Taken>,
        pinned: Option<[u8; 32]>,
    ) {
        self.doubts.insert(operation, Doubt { counted, pinned });
    }

    /// Learns what an operation takes for certain.
    pub(super) fn reconcile(&mut self, operation: OperationHash, taken: Option<&Taken>) {
        let Some(Doubt { counted, pinned }) = self.doubts.remove(&operation) else { return };
        self.change(operation, counted.as_ref(), taken);
        if let Some(order) = pinned {
            self.unpin(order);
        }
    }

    pub(super) fn doubted(&self) -> Vec<OperationHash> {
        self.doubts.keys().copied().collect()
    }

    /// Counts a stored movement.
    pub(super) fn replay(&mut self, movement: &Movement) {
        let Some(Moved { budgets, caller, mode, currency, amount, .. }) = read(movement) else { return };
        for budget in budgets {
            let pot = self.pots.entry((budget, caller.clone(), mode, currency.clone())).or_default();
            pot.add(minute(movement.at_ms), amount);
        }
    }

    /// How far the budgets are used, in the order of the rules; those of orders only where one is asked for.
    pub(super) fn uses(&mut self, asker: Asker<'_>, now_ms: UnixMillis) -> Vec<Use> {
        let rules = self.rules.clone();
        let mut uses = Vec::new();
        for rule in rules {
            let (starts_ms, ends_ms) = bounds(rule.window, now_ms);
            let one = |caller: String, spent, held| Use {
                budget: rule.clone(),
                caller,
                spent,
                held,
                starts_ms,
                ends_ms,
            };
            if rule.window == BudgetWindow::Order {
                let Some(order) = asker.order else { continue };
                let key = (rule.name.clone(), rule.currency.clone());
                let spent = self.orders.get(&order).and_then(|order| order.sums.get(&key)).copied();
                uses.push(one(String::new(), spent.unwrap_or_default(), self.held_of_order(&rule, order)));
                continue;
            }
            let from = since(rule.window, now_ms);
            let mut callers: BTreeMap<String, (i128, i128)> =
                rule.callers.iter().map(|caller| (caller.clone(), (0, 0))).collect();
            for ((name, caller, mode, currency), pot) in &mut self.pots {
                if *name == rule.name && *mode == asker.mode && *currency == rule.currency {
                    callers.insert(caller.clone(), (pot.total(from), pot.held()));
                }
            }
            let told = callers.into_iter().filter(|(caller, _)| asker.caller.is_none_or(|one| one == caller));
            uses.extend(told.map(|(caller, (spent, held))| one(caller, spent, held)));
        }
        uses
    }
}

impl Taken {
    fn pot(&self, budget: &str) -> PotKey {
        (budget.to_owned(), self.spend.caller.clone(), self.mode, self.spend.currency.clone())
    }

    /// What is stored when this is taken, or with `sign` -1 given back.
    fn movement(&self, operation: OperationHash, sign: i128) -> Option<Movement> {
        let moved = Moved {
            operation: operation.to_string(),
            budgets: self.spend.budgets.clone(),
            caller: self.spend.caller.clone(),
            mode: self.mode,
            currency: self.spend.currency.clone(),
            amount: sign * i128::from(self.spend.amount),
        };
        let body = serde_json::to_vec(&moved).ok()?;
        Some(Movement { at_ms: self.spend.at_ms, group: self.order, body })
    }
}

/// What is stored when an operation takes `to` instead of `from`.
pub(super) fn movements(operation: OperationHash, from: Option<&Taken>, to: Option<&Taken>) -> Vec<Movement> {
    if from.map(|taken| &taken.spend) == to.map(|taken| &taken.spend) || planted::active("budget-not-stored")
    {
        return Vec::new();
    }
    let back = from.and_then(|taken| taken.movement(operation, -1));
    back.into_iter().chain(to.and_then(|taken| taken.movement(operation, 1))).collect()
}

/// A stored movement that makes no sense counts nothing; the log says so.
fn read(movement: &Movement) -> Option<Moved> {
    let read = serde_json::from_slice(&movement.body);
    read.inspect_err(|error| tracing::error!(%error, "a movement of a budget cannot be read")).ok()
}
