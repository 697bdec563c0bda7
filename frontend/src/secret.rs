//! What somebody has to know.

/// Whether it is the secret. Takes the same time however much of it is right.
pub(crate) fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let pairs = given.iter().zip(secret);
    let differences = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
    // The optimiser must not see that one difference settles it.
    std::hint::black_box(differences) == 0 && given.len() == secret.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_secret_and_more_than_it_are_not_the_secret() {
        assert!(is_same(b"open sesame", b"open sesame"));
        for wrong in ["", "open", "open sesame!", "open sesamE"] {
            assert!(!is_same(wrong.as_bytes(), b"open sesame"), "{wrong}");
        }
    }
}
