//! What a report is about: components, groups, and which tokens stand at the places that it names.

use crate::measure::Measured;
use crate::source::{Part, Source};
use numerics::activity::Place;
use process::{Result, ResultExt};
use records::Depth;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A site of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub tensor: String,
    pub site: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_index: Option<u32>,
    #[serde(flatten)]
    pub depth: Depth,
}

pub struct Subject {
    pub components: Vec<Named>,
    /// Names of the groups; empty without `--group`.
    pub groups: Vec<String>,
    pub places: Places,
}

impl Subject {
    pub fn of(source: &Source, measured: &[Measured]) -> Result<Self> {
        let named = source.components.iter().map(|component| Named {
            tensor: component.tensor.clone(),
            site: component.site.clone(),
            layer_index: component.layer_index,
            depth: source.depth(component),
        });
        let tallies = measured.iter().flat_map(Measured::tallies);
        let places = tallies.flat_map(|tally| tally.activity.top.iter().map(|one| one.place));
        Ok(Self {
            components: named.collect(),
            groups: source.groups.clone(),
            places: Places::of(source, places)?,
        })
    }
}

/// What the row tables say of the rows that are named in a report.
#[derive(Default)]
pub struct Places(BTreeMap<(u32, u64), Token>);

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Token {
    /// 0 where the rows have no table of positions.
    pub position: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

impl Places {
    fn of(source: &Source, places: impl Iterator<Item = Place>) -> Result<Self> {
        let named: BTreeSet<(u32, u64)> = places.map(|place| (place.source, place.row)).collect();
        let mut found = Self::default();
        for (at, part) in (0..).zip(&source.parts) {
            let rows: Vec<u64> = named
                .iter()
                .filter(|(source, _)| *source == at)
                .map(|(_, row)| *row)
                .collect();
            let (positions, ids) = (of_table(part, "position", &rows)?, of_table(part, "token_id", &rows)?);
            for (index, row) in rows.into_iter().enumerate() {
                let entry = |table: &Option<Vec<u32>>| table.as_ref().map(|table| u64::from(table[index]));
                let token = Token {
                    position: entry(&positions).unwrap_or(0),
                    id: entry(&ids),
                };
                found.insert(at, row, token);
            }
        }
        Ok(found)
    }

    pub fn insert(&mut self, source: u32, row: u64, token: Token) {
        self.0.insert((source, row), token);
    }

    pub fn token(&self, place: Place) -> Token {
        self.0.get(&(place.source, place.row)).copied().unwrap_or_default()
    }
}

/// The entries of a row table; `None` where there is no such table.
fn of_table(part: &Part, name: &str, rows: &[u64]) -> Result<Option<Vec<u32>>> {
    let Ok(tensor) = part.file.tensor(name) else {
        return Ok(None);
    };
    let mut entries = vec![0; rows.len()];
    part.file.gather(tensor, rows, &mut entries).at(&part.name)?;
    Ok(Some(entries))
}
