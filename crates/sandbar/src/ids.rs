//! Ids of runs as people see them: as much of each as tells it from all others.

use sandbar_proto::RunId;

/// Shortest beginning that is shown: the 48 bits of a version 7 UUID that are its time (RFC 9562), so that it
/// stays unique when runs are started later.
const LEAST_CHARACTERS: usize = 13;

/// For each of `ids`, which are sorted, its shortest beginning that no other one has.
pub(crate) fn prefixes(ids: &[RunId]) -> Vec<String> {
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    // Of all others a neighbour in the order has the most in common.
    let shared: Vec<usize> = texts.windows(2).map(|pair| common_bytes(&pair[0], &pair[1])).collect();
    let neighbours = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| shared.get(before));
        before.into_iter().chain(shared.get(index)).copied().max().unwrap_or(0)
    };
    let prefix = |(index, text): (usize, &String)| {
        let length = LEAST_CHARACTERS.max(neighbours(index) + 1).min(text.len());
        text[..length].to_owned()
    };
    texts.iter().enumerate().map(prefix).collect()
}

fn common_bytes(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes_of(ids: &[&str]) -> Vec<String> {
        prefixes(&ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<RunId>>())
    }

    #[test]
    fn an_id_alone_is_shown_by_its_time() {
        assert_eq!(prefixes_of(&["019a0000-0001-7000-8000-000000000000"]), ["019a0000-0001"]);
        assert_eq!(prefixes_of(&[]), [""; 0]);
    }

    #[test]
    fn ids_of_one_moment_are_shown_as_far_as_they_differ() {
        let found = prefixes_of(&[
            "019a0000-0001-7000-8000-000000000000",
            "019a0000-0002-7000-8000-000000000000",
            "019a0000-0002-7300-8000-000000000000",
            "019a0000-0002-7300-8000-0000000000f0",
        ]);
        let expected = [
            "019a0000-0001",
            "019a0000-0002-70",
            "019a0000-0002-7300-8000-00000000000",
            "019a0000-0002-7300-8000-0000000000f",
        ];
        assert_eq!(found, expected);
    }
}
