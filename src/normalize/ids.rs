//! Call ids: native ones kept, missing ones made.

use std::collections::BTreeSet;

use crate::normalize::repairs::Repairs;

/// Gives the calls of one answer their ids.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    next: u64,
    used: BTreeSet<String>,
}

impl Ids {
    /// Made-up ids go on from the calls that the request's history holds.
    pub fn new(calls_before: u64) -> Self {
        Self {
            next: calls_before,
            used: BTreeSet::new(),
        }
    }

    /// The id of the next call, unique in the answer. `said` is what the upstream said: of a structured call its id,
    /// which is kept whatever its form; of a recovered call the header, which is kept if it is canonical.
    pub fn assign(
        &mut self,
        said: Option<&str>,
        recovered: bool,
        name: &str,
        _repairs: &mut Repairs,
    ) -> String {
        let said = said
            .map(str::trim)
            .filter(|said| !said.is_empty() && (!recovered || said.starts_with("functions.")));
        let mut id = said.map_or_else(|| format!("functions.{name}:{}", self.next), str::to_owned);
        while self.used.contains(&id) {
            self.next += 1;
            id = format!("functions.{name}:{}", self.next);
        }
        self.next += 1;
        self.used.insert(id.clone());
        id
    }
}
