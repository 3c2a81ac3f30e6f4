//! A three-way merge of TOML documents that keeps the layout of the one that is written.
//!
//! `before` is what a terminal started from, `after` what it left, `user` the file that takes the changes. What did not
//! change between the two is never touched; where the user's file has moved on as well, it wins.

use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, TableLike, Value};

/// Takes what changed from `before` to `after` into `user`; true when `user` is different now.
pub(super) fn merge(
    before: &dyn TableLike,
    after: &dyn TableLike,
    user: &mut dyn TableLike,
) -> bool {
    let mut changed = false;
    for key in keys(before, after) {
        let (was, is) = (present(before, &key), present(after, &key));
        if equal(was, is) {
            continue;
        }
        let mine = present(user, &key);
        if let (Some(is), Some(mine)) = (is.and_then(Item::as_table_like), mine)
            && mine.is_table_like()
        {
            let empty = Table::new();
            let was: &dyn TableLike = was.and_then(Item::as_table_like).unwrap_or(&empty);
            if let Some(mine) = user.get_mut(&key).and_then(Item::as_table_like_mut) {
                changed |= merge(was, is, mine);
            }
        } else if equal(mine, was) {
            match is {
                Some(is) => put(user, &key, is),
                None => drop(user.remove(&key)),
            }
            changed = true;
        }
    }
    changed
}

/// Writes `item` under `key`; a value that stood there keeps its comments and its place.
pub(super) fn put(table: &mut dyn TableLike, key: &str, item: &Item) {
    if let (Some(Item::Value(old)), Item::Value(new)) = (table.get_mut(key), item) {
        let decor = old.decor().clone();
        *old = new.clone();
        *old.decor_mut() = decor;
        return;
    }
    table.insert(key, detached(item));
}

/// The same data, whatever the layout and the order of keys.
pub(super) fn same(one: &Item, other: &Item) -> bool {
    if let (Some(one), Some(other)) = (one.as_table_like(), other.as_table_like()) {
        return keys(one, other)
            .iter()
            .all(|key| equal(present(one, key), present(other, key)));
    }
    if let (Some(one), Some(other)) = (elements(one), elements(other)) {
        return one.len() == other.len()
            && one.iter().zip(&other).all(|(one, other)| same(one, other));
    }
    match (one.as_value(), other.as_value()) {
        (Some(Value::String(one)), Some(Value::String(other))) => one.value() == other.value(),
        (Some(Value::Integer(one)), Some(Value::Integer(other))) => one.value() == other.value(),
        (Some(Value::Float(one)), Some(Value::Float(other))) => {
            one.value().total_cmp(other.value()).is_eq()
        }
        (Some(Value::Boolean(one)), Some(Value::Boolean(other))) => one.value() == other.value(),
        (Some(Value::Datetime(one)), Some(Value::Datetime(other))) => one.value() == other.value(),
        _ => false,
    }
}

fn equal(one: Option<&Item>, other: Option<&Item>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(one, other),
        _ => false,
    }
}

fn present<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a Item> {
    table.get(key).filter(|item| !item.is_none())
}

/// The keys of both, each once, in the order of the second and then of the first.
fn keys(one: &dyn TableLike, other: &dyn TableLike) -> Vec<String> {
    let mut found: Vec<String> = other.iter().map(|(key, _)| key.to_owned()).collect();
    for (key, _) in one.iter() {
        if !other.contains_key(key) {
            found.push(key.to_owned());
        }
    }
    found
}

fn elements(item: &Item) -> Option<Vec<Item>> {
    match item {
        Item::Value(Value::Array(array)) => Some(array.iter().cloned().map(Item::Value).collect()),
        Item::ArrayOfTables(tables) => Some(tables.iter().cloned().map(Item::Table).collect()),
        _ => None,
    }
}

/// A copy without the layout of the document it comes from, so that it lands at the end of its new one.
fn detached(item: &Item) -> Item {
    match item {
        Item::None => Item::None,
        Item::Value(value) => Item::Value(detached_value(value)),
        Item::Table(table) => Item::Table(detached_table(table)),
        Item::ArrayOfTables(tables) => {
            let mut copy = ArrayOfTables::new();
            for table in tables {
                copy.push(detached_table(table));
            }
            Item::ArrayOfTables(copy)
        }
    }
}

fn detached_table(table: &Table) -> Table {
    let mut copy = Table::new();
    copy.set_implicit(table.is_implicit());
    for (key, item) in table {
        copy.insert(key, detached(item));
    }
    copy
}

fn detached_value(value: &Value) -> Value {
    match value {
        Value::Array(array) => Value::Array(array.iter().map(detached_value).collect::<Array>()),
        Value::InlineTable(table) => {
            let mut copy = InlineTable::new();
            for (key, value) in table {
                copy.insert(key, detached_value(value));
            }
            Value::InlineTable(copy)
        }
        Value::String(text) => Value::from(text.value().as_str()),
        Value::Integer(number) => Value::from(*number.value()),
        Value::Float(number) => Value::from(*number.value()),
        Value::Boolean(flag) => Value::from(*flag.value()),
        Value::Datetime(stamp) => Value::from(*stamp.value()),
    }
}

#[cfg(test)]
mod tests {
    use toml_edit::DocumentMut;

    use super::*;

    fn check(before: &str, after: &str, user: &str, expected: &str) {
        let [before, after]: [DocumentMut; 2] = [before, after].map(|text| text.parse().unwrap());
        let mut merged: DocumentMut = user.parse().unwrap();
        let changed = merge(before.as_table(), after.as_table(), merged.as_table_mut());
        assert_eq!(merged.to_string(), expected);
        assert_eq!(changed, user != expected);
    }

    #[test]
    fn changes_are_taken_and_the_rest_is_left_as_it_stands() {
        check(
            "a = 1",
            "a = 2",
            "# top\na   = 1 # why\n",
            "# top\na   = 2 # why\n",
        );
        check("a = 1", "a = 2", "a = 3\n", "a = 3\n");
        check("a = 1", "", "a = 1\nb = 2\n", "b = 2\n");
        check("a = 1", "", "a = 5\n", "a = 5\n");
        check("", "n = 'x'", "[t]\nk = 1\n", "n = \"x\"\n[t]\nk = 1\n");
        check("", "[t]\nk = 1", "[t]\nj = 2\n", "[t]\nj = 2\nk = 1\n");
        check(
            "",
            "[p.new]\nk = [1, 2]",
            "[p.old]\nk = 1\n",
            "[p.old]\nk = 1\n\n[p.new]\nk = [1, 2]\n",
        );
        check(
            "t = {a = 1}",
            "[t]\na = 2",
            "t = { a = 1 } # c\n",
            "t = { a = 2 } # c\n",
        );
        check(
            "[[h]]\ne = 1",
            "h = [{e = 1}]",
            "h = [{ e = 1 }]\n",
            "h = [{ e = 1 }]\n",
        );
        check("", "[[h]]\ne = 1", "x = 1\n", "x = 1\n\n[[h]]\ne = 1\n");
    }
}
