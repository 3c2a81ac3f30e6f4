//! Names of files and folders that are about a path.
//!
//! A host keeps an overlay, a journal or generated files for each home of a client. Their names are made from the home's
//! path: always the same for the same path, distinct for distinct ones, and never longer than a file system takes.

use std::path::Path;

use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_encode;
use xxhash_rust::xxh3::xxh3_128;

/// Longest file name that is made from a path, in bytes. File systems take 255; locks, copies and temporary files beside
/// it need some more.
const LONGEST_NAME: usize = 200;

/// How much of a longer name stays readable, in bytes.
const READABLE: usize = 100;

/// A path as one plain file name: all but letters and digits percent-encoded, or a hash and the end of that where it is
/// long. The hash comes with a hyphen, which the encoding never has.
pub(crate) fn encode(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let name = percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    if name.len() <= LONGEST_NAME {
        return name;
    }
    format!(
        "{:032x}-{}",
        xxh3_128(bytes),
        &name[name.len() - READABLE..]
    )
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_path_becomes_a_name_of_its_own() {
        let encoded = |bytes: &[u8]| encode(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(encoded(b"/home/me"), "%2Fhome%2Fme");
        assert_ne!(encoded(b"/h/\xff"), encoded(b"/h/\xfe"));
        let deep = [b"/folder".repeat(40), b"/home".to_vec()].concat();
        let other = [b"/Folder".to_vec(), deep[7..].to_vec()].concat();
        assert!(encoded(&deep).len() <= LONGEST_NAME, "{}", encoded(&deep));
        assert!(encoded(&deep).ends_with("%2Fhome") && !encoded(&deep).contains('.'));
        assert_ne!(encoded(&deep), encoded(&other));
    }
}
