//! A sorted map from paths to values, whose copies share what they have in common.
//!
//! The values are in chunks. A copy shares all of them, and a change copies only the chunk that it is in. So a tree of
//! 100,000 entries with ten changes is copied in less than a thousandth of the time that an ordinary map takes, and is
//! compared with the original in the time that the changed chunks take ([`PathMap::differences`]).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::RelativePath;

/// How many values a chunk gets where many are added at once.
const CHUNK: usize = 128;
/// How many values a chunk has at most. One that would have more is split.
const CHUNK_MAX: usize = 2 * CHUNK;

/// A path and its value.
type Item<V> = (RelativePath, V);

/// Values by path, in byte order of the paths.
#[derive(Clone)]
pub struct PathMap<V> {
    /// None of them is empty. All paths of one are before those of the next.
    chunks: Vec<Arc<Vec<Item<V>>>>,
    len: usize,
}

impl<V> PathMap<V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value at a path.
    #[must_use]
    pub fn get<P: Borrow<[u8]> + ?Sized>(&self, path: &P) -> Option<&V> {
        let (chunk, at) = self.find(path.borrow());
        at.ok().map(|at| &self.chunks[chunk][at].1)
    }

    /// The value at a path, and the path as the map has it.
    #[must_use]
    pub fn get_key_value<P: Borrow<[u8]> + ?Sized>(&self, path: &P) -> Option<(&RelativePath, &V)> {
        let (chunk, at) = self.find(path.borrow());
        at.ok().map(|at| &self.chunks[chunk][at]).map(|(path, value)| (path, value))
    }

    /// Whether it has a value at a path.
    #[must_use]
    pub fn contains_key<P: Borrow<[u8]> + ?Sized>(&self, path: &P) -> bool {
        self.find(path.borrow()).1.is_ok()
    }

    /// All paths with their values, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, V> {
        Iter { chunks: &self.chunks, items: &[] }
    }

    /// The paths and values from a path on, in order.
    #[must_use]
    pub fn iter_from(&self, path: &[u8]) -> Iter<'_, V> {
        let (chunk, at) = self.find(path);
        let items = self.chunks.get(chunk).map_or(&[][..], |items| &items[at.unwrap_or_else(|at| at)..]);
        Iter { chunks: self.chunks.get(chunk + 1..).unwrap_or_default(), items }
    }

    /// All paths, in order.
    pub fn keys(&self) -> impl Iterator<Item = &RelativePath> {
        self.iter().map(|(path, _)| path)
    }

    /// All values, in order of their paths.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// What two maps have at each path of either.
    pub fn join<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Joined<'a, V>> {
        self.join_unless(other, |_, _| {})
    }

    /// What two maps have at each path of either, without the chunks that they share. The values may still be equal.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Joined<'a, V>> {
        self.join_unless(other, Iter::skip_shared)
    }

    fn join_unless<'a>(
        &'a self,
        other: &'a Self,
        skip: impl Fn(&mut Iter<'a, V>, &mut Iter<'a, V>),
    ) -> impl Iterator<Item = Joined<'a, V>> {
        let (mut left, mut right) = (self.iter(), other.iter());
        std::iter::from_fn(move || {
            skip(&mut left, &mut right);
            let order = match (left.peek(), right.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            let mine = if order.is_le() { left.next() } else { None };
            let others = if order.is_ge() { right.next() } else { None };
            let path = mine.or(others)?.0;
            Some((path, mine.map(|(_, value)| value), others.map(|(_, value)| value)))
        })
    }

    /// Finds several values, fastest if the paths are near each other, as those of one folder are.
    #[must_use]
    pub fn nearby(&self) -> Nearby<'_, V> {
        Nearby { map: self, chunk: 0 }
    }

    /// The chunk in which a path is or would be, and where it is there, or would be.
    fn find(&self, path: &[u8]) -> (usize, Result<usize, usize>) {
        let after = self.chunks.partition_point(|chunk| chunk[0].0.as_bytes() <= path);
        let chunk = after.saturating_sub(1);
        let at = self
            .chunks
            .get(chunk)
            .map_or(Err(0), |items| items.binary_search_by(|(there, _)| there.as_bytes().cmp(path)));
        (chunk, at)
    }

    /// A map of these, which are in any order. Of several values at one path the last one counts.
    fn of_unsorted(mut items: Vec<Item<V>>) -> Self {
        items.reverse();
        items.sort_by(|(a, _), (b, _)| a.cmp(b));
        items.dedup_by(|(a, _), (b, _)| a == b);
        items.into_iter().collect()
    }
}

impl<V: Clone> PathMap<V> {
    /// Puts a value at a path, in the place of the one that is there.
    pub fn insert(&mut self, path: RelativePath, value: V) {
        let (chunk, at) = self.find(path.as_bytes());
        let Some(items) = self.chunks.get_mut(chunk) else {
            self.chunks.push(Arc::new(vec![(path, value)]));
            self.len = 1;
            return;
        };
        let at = match at {
            Ok(at) => {
                Arc::make_mut(items)[at].1 = value;
                return;
            }
            Err(at) => at,
        };
        self.len += 1;
        let is_full = items.len() >= CHUNK_MAX;
        // Values that come in order fill one chunk after the other.
        if is_full && at == items.len() {
            self.chunks.insert(chunk + 1, Arc::new(vec![(path, value)]));
            return;
        }
        let items = Arc::make_mut(items);
        items.insert(at, (path, value));
        if is_full {
            let rest = items.split_off(CHUNK);
            self.chunks.insert(chunk + 1, Arc::new(rest));
        }
    }

    /// Becomes equal to another map, and still shares with its copies what is equal in both.
    pub fn become_equal(&mut self, other: &Self)
    where
        V: PartialEq,
    {
        let before = self.clone();
        for (path, mine, others) in before.differences(other).filter(|(_, mine, others)| mine != others) {
            match (mine, others) {
                (_, Some(value)) => self.insert(path.clone(), value.clone()),
                (_, None) => self.remove(path),
            }
        }
    }

    /// Removes the value at a path.
    pub fn remove<P: Borrow<[u8]> + ?Sized>(&mut self, path: &P) {
        let (chunk, Ok(at)) = self.find(path.borrow()) else { return };
        self.len -= 1;
        if self.chunks[chunk].len() == 1 {
            self.chunks.remove(chunk);
        } else {
            Arc::make_mut(&mut self.chunks[chunk]).remove(at);
        }
    }

    /// Keeps only the values for which `test` is true.
    pub fn retain(&mut self, mut test: impl FnMut(&RelativePath, &V) -> bool) {
        let mut len = 0;
        self.chunks.retain_mut(|chunk| {
            let kept: Vec<bool> = chunk.iter().map(|(path, value)| test(path, value)).collect();
            if kept.contains(&false) {
                let mut kept = kept.into_iter();
                Arc::make_mut(chunk).retain(|_| kept.next() == Some(true));
            }
            len += chunk.len();
            !chunk.is_empty()
        });
        self.len = len;
    }
}

impl<V> Default for PathMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for PathMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<V: PartialEq> PartialEq for PathMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.differences(other).all(|(_, mine, others)| mine == others)
    }
}

impl<V: Eq> Eq for PathMap<V> {}

impl<V> FromIterator<Item<V>> for PathMap<V> {
    /// Of several values at one path the last one counts.
    fn from_iter<I: IntoIterator<Item = Item<V>>>(items: I) -> Self {
        let mut items = items.into_iter();
        let mut chunks: Vec<Vec<Item<V>>> = Vec::new();
        let mut len = 0;
        while let Some(item) = items.next() {
            let last = chunks.last().and_then(|chunk| chunk.last());
            if last.is_some_and(|(last, _)| *last >= item.0) {
                return Self::of_unsorted(chunks.into_iter().flatten().chain([item]).chain(items).collect());
            }
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < CHUNK => chunk.push(item),
                // Many maps have a few values only.
                None => chunks.push(vec![item]),
                Some(_) => {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    chunk.push(item);
                    chunks.push(chunk);
                }
            }
            len += 1;
        }
        Self { chunks: chunks.into_iter().map(Arc::new).collect(), len }
    }
}

impl<V, const N: usize> From<[Item<V>; N]> for PathMap<V> {
    fn from(items: [Item<V>; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<V: Clone> Extend<Item<V>> for PathMap<V> {
    fn extend<I: IntoIterator<Item = Item<V>>>(&mut self, items: I) {
        for (path, value) in items {
            self.insert(path, value);
        }
    }
}

impl<V: Clone> IntoIterator for PathMap<V> {
    type Item = Item<V>;
    type IntoIter = std::iter::FlatMap<
        std::vec::IntoIter<Arc<Vec<Item<V>>>>,
        Vec<Item<V>>,
        fn(Arc<Vec<Item<V>>>) -> Vec<Item<V>>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flat_map(Arc::unwrap_or_clone)
    }
}

impl<'a, V> IntoIterator for &'a PathMap<V> {
    type Item = (&'a RelativePath, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

/// Finds values by path, and looks first where the last one was.
#[derive(Debug)]
pub struct Nearby<'a, V> {
    map: &'a PathMap<V>,
    chunk: usize,
}

impl<'a, V> Nearby<'a, V> {
    /// The value at a path.
    pub fn get(&mut self, path: &RelativePath) -> Option<&'a V> {
        let chunks = &self.map.chunks;
        let begins_by = |chunk: usize| chunks.get(chunk).is_some_and(|items| items[0].0 <= *path);
        if !begins_by(self.chunk) || begins_by(self.chunk + 1) {
            self.chunk = chunks.partition_point(|items| items[0].0 <= *path).saturating_sub(1);
        }
        let items = chunks.get(self.chunk)?;
        let at = items.binary_search_by(|(there, _)| there.cmp(path)).ok()?;
        Some(&items[at].1)
    }
}

/// A path and what two maps have there.
pub type Joined<'a, V> = (&'a RelativePath, Option<&'a V>, Option<&'a V>);

/// The paths and values of a map.
pub struct Iter<'a, V> {
    /// Those that have not begun.
    chunks: &'a [Arc<Vec<Item<V>>>],
    /// What is left of the one that has.
    items: &'a [Item<V>],
}

impl<'a, V> Iter<'a, V> {
    /// The next one, which stays the next.
    fn peek(&mut self) -> Option<&'a Item<V>> {
        if self.items.is_empty() {
            let (first, rest) = self.chunks.split_first()?;
            (self.chunks, self.items) = (rest, first);
        }
        self.items.first()
    }

    /// Skips the chunks that both have next.
    fn skip_shared(&mut self, other: &mut Self) {
        while self.items.is_empty() && other.items.is_empty() {
            let (Some((mine, rest)), Some((others, others_rest))) =
                (self.chunks.split_first(), other.chunks.split_first())
            else {
                return;
            };
            if !Arc::ptr_eq(mine, others) {
                return;
            }
            (self.chunks, other.chunks) = (rest, others_rest);
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a RelativePath, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, value) = self.peek()?;
        self.items = &self.items[1..];
        Some((path, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.items.len() + self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
        (len, Some(len))
    }
}

impl<V> Clone for Iter<'_, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks, items: self.items }
    }
}

impl<V: fmt::Debug> fmt::Debug for Iter<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

impl<V: Serialize> Serialize for PathMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len))?;
        for (path, value) in self {
            map.serialize_entry(path, value)?;
        }
        map.end()
    }
}

/// The most values for which memory is reserved because a number says so.
const RESERVED_MAX: usize = 1 << 20;

impl<'de, V: Deserialize<'de>> Deserialize<'de> for PathMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Items<V> {
            type Value = PathMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from paths")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PathMap<V>, A::Error> {
                let mut items = Vec::with_capacity(map.size_hint().unwrap_or(0).min(RESERVED_MAX));
                while let Some(item) = map.next_entry()? {
                    items.push(item);
                }
                Ok(items.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random;

    fn path(number: usize) -> RelativePath {
        RelativePath::parse(format!("{}/{}", number % 37, number).as_bytes()).unwrap().unwrap()
    }

    /// What an ordinary map has.
    type Model = BTreeMap<RelativePath, usize>;

    fn check(map: &PathMap<usize>, model: &Model) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        assert!(map.clone().into_iter().eq(model.clone()));
        assert_eq!(map.is_empty(), model.is_empty());
        assert_eq!(map.iter().size_hint(), (model.len(), Some(model.len())));
        assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
        let mut nearby = map.nearby();
        let numbers = (0..200).chain((0..200).map(|number| number * 37 % 5001));
        for at in numbers.map(path).chain(model.keys().cloned()) {
            assert_eq!(nearby.get(&at), model.get(&at), "{at}");
        }
        let built: PathMap<usize> = model.clone().into_iter().rev().collect();
        assert_eq!(map, &built);
    }

    #[test]
    fn it_is_at_all_times_what_an_ordinary_map_is() {
        let mut random = random::bits();
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        for paths in [3, 300, 5000] {
            let (mut map, mut model) = (PathMap::new(), Model::new());
            check(&map, &model);
            for step in 0..6000 {
                let at = path(next(paths));
                match next(10) {
                    0..6 => {
                        map.insert(at.clone(), step);
                        model.insert(at, step);
                    }
                    6..9 => {
                        map.remove(&at);
                        model.remove(&at);
                    }
                    _ => {
                        let from = at.as_bytes();
                        assert_eq!(map.get(from), model.get(from));
                        assert_eq!(map.contains_key(&at), model.contains_key(&at));
                        assert!(map.iter_from(from).eq(model.range(at.clone()..)));
                    }
                }
                if step % 1500 == 0 {
                    check(&map, &model);
                    let odd = |value: &usize| value % 2 == 1;
                    map.retain(|_, value| odd(value));
                    model.retain(|_, value| odd(value));
                    check(&map, &model);
                }
            }
            check(&map, &model);
        }
    }

    #[test]
    fn a_copy_differs_where_it_was_changed_and_is_not_compared_elsewhere() {
        let original: PathMap<usize> = (0..10_000).map(|number| (path(number), number)).collect();
        let mut changed = original.clone();
        assert_eq!(original.differences(&changed).count(), 0);
        changed.insert(path(5), 0);
        changed.remove(&path(777));
        changed.insert(path(20_000), 1);
        assert_ne!(original, changed);
        for (before, after, sign) in [(&original, &changed, 1), (&changed, &original, -1)] {
            let all: Vec<_> = before.differences(after).collect();
            assert!(all.len() <= 3 * CHUNK_MAX, "{}", all.len());
            let unequal = all.into_iter().filter(|(_, before, after)| before != after);
            let mut found: Vec<_> = unequal
                .map(|(path, before, after)| (path.clone(), [before, after].map(Option::<&usize>::copied)))
                .collect();
            let mut expected = vec![
                (path(5), [Some(5), Some(0)]),
                (path(777), [Some(777), None]),
                (path(20_000), [None, Some(1)]),
            ];
            if sign < 0 {
                for (_, values) in &mut expected {
                    values.reverse();
                }
            }
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_map_that_becomes_equal_to_another_shares_what_was_equal_before() {
        let original: PathMap<usize> = (0..10_000).map(|number| (path(number), number)).collect();
        let other: PathMap<usize> = (1..10_001).map(|number| (path(number), number.max(2))).collect();
        let mut map = original.clone();
        map.become_equal(&other);
        assert_eq!(map, other);
        assert!(map.differences(&original).count() <= 3 * CHUNK_MAX);
        map.become_equal(&PathMap::new());
        assert!(map.is_empty());
        map.become_equal(&original);
        assert_eq!(map, original);
    }

    #[test]
    fn of_several_values_at_one_path_the_last_one_counts() {
        let map: PathMap<usize> = [(path(2), 1), (path(1), 2), (path(2), 3)].into();
        assert!(map.iter().eq([(&path(1), &2), (&path(2), &3)]));
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let map: PathMap<usize> = (0..1000).map(|number| (path(number), number)).collect();
        let written = postcard::to_stdvec(&map).unwrap();
        assert_eq!(postcard::from_bytes::<PathMap<usize>>(&written).unwrap(), map);
        assert!(postcard::from_bytes::<PathMap<usize>>(&written[..written.len() - 1]).is_err());
    }
}
