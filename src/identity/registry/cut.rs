//! What remains of who may call when callers and credentials are taken away and nothing is taken over. Nobody gains
//! anything by it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{State, hash};
use crate::config::{CallerConfig, Roll};

impl State {
    /// The callers and credentials that the roll has too. Whoever is of both keeps the older namespace and groups.
    pub(super) fn cut_to(&self, roll: &Roll) -> Self {
        let callers: HashMap<&str, &CallerConfig> =
            roll.callers.iter().map(|caller| (caller.name.as_str(), caller)).collect();
        let is_left = |name: &String, has: &dyn Fn(&CallerConfig) -> bool| {
            callers.get(name.as_str()).is_some_and(|caller| has(caller))
        };
        let mut state = self.clone();
        state.callers.retain(|name, _| is_left(name, &|_| true));
        let hashes: HashSet<_> = roll
            .callers
            .iter()
            .flat_map(|caller| caller.tokens.iter().map(|token| (caller.name.as_str(), hash(token))))
            .collect();
        let owners = &self.configured_of;
        state.configured.retain(|hash, id| {
            owners.get(id).is_some_and(|caller| hashes.contains(&(caller.as_str(), *hash)))
        });
        let ids: BTreeSet<&String> = state.configured.values().collect();
        state.configured_of.retain(|id, _| ids.contains(id));
        state.certificates.retain(|san, caller| is_left(caller, &|left| left.certificates.contains(san)));
        for (claim, issuer) in &mut state.issuers {
            let named = roll.issuers.iter().find(|named| named.issuer == *claim);
            issuer.subjects.retain(|subject, caller| {
                let is_of = |left: &CallerConfig| {
                    left.subjects.iter().any(|own| {
                        own.subject == *subject && named.is_some_and(|named| named.name == own.issuer)
                    })
                };
                is_left(caller, &is_of)
            });
        }
        state
    }

    /// How many callers and credentials of the configuration there are.
    pub(super) fn size(&self) -> usize {
        let subjects: usize = self.issuers.values().map(|issuer| issuer.subjects.len()).sum();
        self.callers.len() + self.configured.len() + self.certificates.len() + subjects
    }
}
