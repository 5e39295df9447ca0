//! Which of many stretches holds a place: the one that begins last of those that reach beyond it. Stretches may lie inside
//! others and many may begin at one place, so the answer is found in a tree of how far they reach.

/// Where each of a list of stretches, in the order of their starts, ends.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    /// A complete binary tree, the root at 1: how far those below a node reach. The leaves are the stretches.
    reach: Vec<u64>,
}

impl Cover {
    /// From `[start, end)` of each, by start. An empty one holds its own place.
    pub fn of(stretches: impl ExactSizeIterator<Item = (u64, u64)>) -> Self {
        let leaves = (stretches.len() + 1).next_power_of_two();
        let mut reach = vec![0; 2 * leaves];
        for (leaf, (start, end)) in reach[leaves..].iter_mut().zip(stretches) {
            *leaf = end.max(start.saturating_add(1));
        }
        for node in (1..leaves).rev() {
            reach[node] = reach[2 * node].max(reach[2 * node + 1]);
        }
        Self { reach }
    }

    /// The last of the first `count` that reaches beyond `place`.
    pub fn last_beyond(&self, count: usize, place: u64) -> Option<usize> {
        let leaves = self.reach.len() / 2;
        let beyond = |node: usize| self.reach.get(node).is_some_and(|r| *r > place);
        // From the right, the largest subtrees that hold only the first `count`.
        let mut end = leaves + count.min(leaves.saturating_sub(1));
        while end > 1 {
            if end % 2 == 1 && beyond(end - 1) {
                let mut node = end - 1;
                while node < leaves {
                    node = if beyond(2 * node + 1) { 2 * node + 1 } else { 2 * node };
                }
                return Some(node - leaves);
            }
            end /= 2;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Cover;

    #[test]
    fn the_last_one_that_holds_a_place() {
        let list = [(0, 100), (10, 20), (10, 10), (12, 15), (30, 30), (40, 50), (50, 60), (90, 120)];
        for n in 0..=list.len() {
            let cover = Cover::of(list[..n].iter().copied());
            for count in 0..=n {
                for place in 0..130 {
                    let holds = |i: &usize| list[*i].1.max(list[*i].0 + 1) > place;
                    assert_eq!(cover.last_beyond(count, place), (0..count).rev().find(holds), "{n} {count} {place}");
                }
            }
        }
        assert_eq!(Cover::default().last_beyond(3, 0), None);
    }
}
