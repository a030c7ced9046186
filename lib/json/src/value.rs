//! One text to one value, counted while it is built.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::number::{check_integers, check_lengths};
use crate::{Fault, Limits, Object, describe, kind};

pub(crate) fn read(text: &str, limits: &Limits, fields: Option<&[String]>) -> Result<Object, Fault> {
    check_lengths(text, limits)?;
    let check = Check {
        limits,
        keys: Cell::new(0),
        values: Cell::new(0),
        depth: Cell::new(0),
        has_huge: Cell::new(false),
        fault: RefCell::new(None),
    };
    let mut input = serde_json::Deserializer::from_str(text);
    let read = (|| {
        let value = Checked { check: &check, fields }.deserialize(&mut input)?;
        input.end()?;
        Ok(value)
    })();
    let value = match read {
        Ok(value) => value,
        Err(error) => return Err(check.fault.into_inner().unwrap_or_else(|| describe(&error, text))),
    };
    if limits.exact_integers && check.has_huge.get() {
        check_integers(text)?;
    }
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Fault::NotObject { found: kind(&other) }),
    }
}

/// The counters of one text, and the fault met, which cannot travel inside serde's error type.
struct Check<'c> {
    limits: &'c Limits,
    keys: Cell<usize>,
    values: Cell<usize>,
    depth: Cell<usize>,
    /// A number of 2^63 or more was met, which may be an integer that lost digits.
    has_huge: Cell<bool>,
    fault: RefCell<Option<Fault>>,
}

impl Check<'_> {
    fn refuse<T, E: serde::de::Error>(&self, fault: Fault) -> Result<T, E> {
        *self.fault.borrow_mut() = Some(fault);
        Err(E::custom("refused"))
    }

    /// BOUND: counts a thing that the input drives.
    fn count<E: serde::de::Error>(
        &self,
        counter: &Cell<usize>,
        limit: usize,
        fault: fn(usize) -> Fault,
    ) -> Result<(), E> {
        counter.set(counter.get() + 1);
        if counter.get() > limit {
            self.refuse(fault(limit))
        } else {
            Ok(())
        }
    }

    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        self.count(&self.depth, self.limits.depth, |limit| Fault::DepthExceeded { limit })
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}

/// Builds one value under a [`Check`]; `fields` narrows the keys of this object, not of those inside it.
#[derive(Clone, Copy)]
struct Checked<'c, 'l> {
    check: &'c Check<'l>,
    fields: Option<&'c [String]>,
}

impl<'de> DeserializeSeed<'de> for Checked<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.check
            .count(&self.check.values, self.check.limits.value_count, |limit| {
                Fault::ValueCountExceeded { limit }
            })?;
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_, '_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.abs() >= 9_223_372_036_854_775_808.0 {
            self.check.has_huge.set(true);
        }
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => self.check.refuse(Fault::NonFinite { key: None }),
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        self.check.enter()?;
        let inner = Checked { fields: None, ..self };
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        self.check.leave();
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.check.enter()?;
        let inner = Checked { fields: None, ..self };
        let mut object = Map::with_capacity(self.fields.map_or(0, <[_]>::len));
        while let Some(key) = entries.next_key::<Key<'de>>()? {
            self.check
                .count(&self.check.keys, self.check.limits.key_count, |limit| {
                    Fault::KeyCountExceeded { limit }
                })?;
            if self
                .fields
                .is_some_and(|fields| !fields.iter().any(|field| *field == key.0))
            {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            match object.entry(key.0) {
                serde_json::map::Entry::Vacant(slot) => {
                    slot.insert(entries.next_value_seed(inner)?);
                }
                serde_json::map::Entry::Occupied(slot) => {
                    return self.check.refuse(Fault::KeyDuplicate { key: slot.key().into() });
                }
            }
        }
        self.check.leave();
        Ok(Value::Object(object))
    }
}

/// An object key, borrowed from the text unless it holds an escape.
#[derive(Deserialize)]
struct Key<'t>(#[serde(borrow)] Cow<'t, str>);
