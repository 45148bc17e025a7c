//! Messages of `filesystem.Filesystem`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::json::{enum_field, int64, is_default};

/// Path of `Stat`.
pub const STAT: &str = "/filesystem.Filesystem/Stat";
/// Path of `MakeDir`.
pub const MAKE_DIR: &str = "/filesystem.Filesystem/MakeDir";
/// Path of `Move`.
pub const MOVE: &str = "/filesystem.Filesystem/Move";
/// Path of `ListDir`.
pub const LIST_DIR: &str = "/filesystem.Filesystem/ListDir";
/// Path of `Remove`.
pub const REMOVE: &str = "/filesystem.Filesystem/Remove";
/// Path of `WatchDir`, a server stream.
pub const WATCH_DIR: &str = "/filesystem.Filesystem/WatchDir";
/// Path of `CreateWatcher`.
pub const CREATE_WATCHER: &str = "/filesystem.Filesystem/CreateWatcher";
/// Path of `GetWatcherEvents`.
pub const GET_WATCHER_EVENTS: &str = "/filesystem.Filesystem/GetWatcherEvents";
/// Path of `RemoveWatcher`.
pub const REMOVE_WATCHER: &str = "/filesystem.Filesystem/RemoveWatcher";

/// What an entry is; a link reports what it finally points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FileType {
    /// Broken link, socket, pipe or device.
    Unspecified = 0,
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Defined by the protocol; never reported.
    Symlink = 3,
}

impl FileType {
    /// The protocol's name.
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Unspecified => "FILE_TYPE_UNSPECIFIED",
            Self::File => "FILE_TYPE_FILE",
            Self::Directory => "FILE_TYPE_DIRECTORY",
            Self::Symlink => "FILE_TYPE_SYMLINK",
        }
    }

    /// The value with this name.
    pub fn from_str_name(name: &str) -> Option<Self> {
        [Self::Unspecified, Self::File, Self::Directory, Self::Symlink]
            .into_iter()
            .find(|value| value.as_str_name() == name)
    }
}

/// What happened to an entry of a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// Never sent.
    Unspecified = 0,
    /// Appeared.
    Create = 1,
    /// Content changed.
    Write = 2,
    /// Deleted.
    Remove = 3,
    /// Moved away under this name.
    Rename = 4,
    /// Mode, owner, times or metadata changed.
    Chmod = 5,
}

impl EventType {
    /// The protocol's name.
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Unspecified => "EVENT_TYPE_UNSPECIFIED",
            Self::Create => "EVENT_TYPE_CREATE",
            Self::Write => "EVENT_TYPE_WRITE",
            Self::Remove => "EVENT_TYPE_REMOVE",
            Self::Rename => "EVENT_TYPE_RENAME",
            Self::Chmod => "EVENT_TYPE_CHMOD",
        }
    }

    /// The value with this name.
    pub fn from_str_name(name: &str) -> Option<Self> {
        [Self::Unspecified, Self::Create, Self::Write, Self::Remove, Self::Rename, Self::Chmod]
            .into_iter()
            .find(|value| value.as_str_name() == name)
    }
}

enum_field!(file_type, FileType);
enum_field!(event_type, EventType);

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryInfo {
    /// Last component of the path.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// A [`FileType`].
    #[prost(enumeration = "FileType", tag = "2")]
    #[serde(with = "file_type", skip_serializing_if = "is_default")]
    pub r#type: i32,
    /// The path as it was asked for, made absolute.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Bytes; of a link, of its text.
    #[prost(int64, tag = "4")]
    #[serde(with = "int64", skip_serializing_if = "is_default")]
    pub size: i64,
    /// Permission bits; of a link, its target's.
    #[prost(uint32, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    /// Type and permissions in letters, as Go prints them.
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    pub permissions: String,
    /// User name, or the number of a user without one.
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "is_default")]
    pub owner: String,
    /// Group name, or the number of a group without one.
    #[prost(string, tag = "8")]
    #[serde(skip_serializing_if = "is_default")]
    pub group: String,
    /// Absent at exactly the epoch.
    #[prost(message, optional, tag = "9")]
    #[serde(alias = "modified_time", skip_serializing_if = "Option::is_none")]
    pub modified_time: Option<Timestamp>,
    /// Of a link: where it finally points, or its own path when it is broken.
    #[prost(string, optional, tag = "10")]
    #[serde(alias = "symlink_target", skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
    /// What an uploader attached.
    #[prost(btree_map = "string, string", tag = "11")]
    #[serde(skip_serializing_if = "is_default")]
    pub metadata: BTreeMap<String, String>,
    /// Whether the entry itself is a link, whatever [`EntryInfo::type`] says.
    #[prost(bool, tag = "12")]
    #[serde(alias = "is_symlink", skip_serializing_if = "is_default")]
    pub is_symlink: bool,
}

macro_rules! path_request {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Absolute, relative to the user's home, or empty for the default directory.
            #[prost(string, tag = "1")]
            #[serde(skip_serializing_if = "is_default")]
            pub path: String,
        }
    };
}

macro_rules! entry_response {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Always present in an answer.
            #[prost(message, optional, tag = "1")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub entry: Option<EntryInfo>,
        }
    };
}

macro_rules! empty {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        pub struct $name {}
    };
}

path_request!(
    /// Asks about one entry.
    StatRequest
);
entry_response!(
    /// Answers [`StatRequest`].
    StatResponse
);
path_request!(
    /// Makes a directory and its parents.
    MakeDirRequest
);
entry_response!(
    /// Answers [`MakeDirRequest`].
    MakeDirResponse
);
path_request!(
    /// Removes an entry and what is in it.
    RemoveRequest
);
empty!(
    /// Answers [`RemoveRequest`].
    RemoveResponse
);
entry_response!(
    /// Answers [`MoveRequest`].
    MoveResponse
);

/// Renames an entry.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MoveRequest {
    /// What to move.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Its new path.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub destination: String,
}

/// Lists a directory.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListDirRequest {
    /// The directory.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Levels to descend; 0 is 1.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub depth: u32,
}

/// Answers [`ListDirRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListDirResponse {
    /// Depth first, sorted by name in each directory.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryInfo>,
}

macro_rules! watch_request {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// The directory to watch.
            #[prost(string, tag = "1")]
            #[serde(skip_serializing_if = "is_default")]
            pub path: String,
            /// Also watch what is below it.
            #[prost(bool, tag = "2")]
            #[serde(skip_serializing_if = "is_default")]
            pub recursive: bool,
            /// Attach the entry to events of entries that still exist.
            #[prost(bool, tag = "3")]
            #[serde(alias = "include_entry", skip_serializing_if = "is_default")]
            pub include_entry: bool,
            /// Accept a network file system, where others' changes are not seen.
            #[prost(bool, tag = "4")]
            #[serde(alias = "allow_network_mounts", skip_serializing_if = "is_default")]
            pub allow_network_mounts: bool,
        }
    };
}

watch_request!(
    /// Streams what happens in a directory.
    WatchDirRequest
);
watch_request!(
    /// Collects what happens in a directory until it is asked for.
    CreateWatcherRequest
);

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilesystemEvent {
    /// Relative to the watched directory; `.` is the directory itself.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// An [`EventType`].
    #[prost(enumeration = "EventType", tag = "2")]
    #[serde(with = "event_type", skip_serializing_if = "is_default")]
    pub r#type: i32,
    /// When asked for and still there.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryInfo>,
}

empty!(
    /// The watch is armed.
    WatchStart
);
empty!(
    /// Nothing happened for a while.
    WatchKeepAlive
);

/// One message of a watch. Exactly one field is present.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WatchDirResponse {
    /// First message.
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<WatchStart>,
    /// Something happened.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FilesystemEvent>,
    /// Nothing happened.
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<WatchKeepAlive>,
}

macro_rules! watcher_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Names the watcher.
            #[prost(string, tag = "1")]
            #[serde(alias = "watcher_id", skip_serializing_if = "is_default")]
            pub watcher_id: String,
        }
    };
}

watcher_id!(
    /// Answers [`CreateWatcherRequest`].
    CreateWatcherResponse
);
watcher_id!(
    /// Takes what a watcher collected.
    GetWatcherEventsRequest
);
watcher_id!(
    /// Ends a watcher.
    RemoveWatcherRequest
);
empty!(
    /// Answers [`RemoveWatcherRequest`].
    RemoveWatcherResponse
);

/// Answers [`GetWatcherEventsRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetWatcherEventsResponse {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<FilesystemEvent>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envd::Codec;

    fn entry() -> EntryInfo {
        EntryInfo {
            name: "a".into(),
            r#type: FileType::File as i32,
            path: "/a".into(),
            size: 5_000_000_000,
            mode: 0o644,
            symlink_target: Some("/b".into()),
            is_symlink: true,
            metadata: [("author".to_owned(), "me".to_owned())].into(),
            ..EntryInfo::default()
        }
    }

    #[test]
    fn json_spells_entries_as_clients_expect() {
        let want = serde_json::json!({
            "name": "a", "type": "FILE_TYPE_FILE", "path": "/a", "size": "5000000000", "mode": 420,
            "symlinkTarget": "/b", "isSymlink": true, "metadata": {"author": "me"},
        });
        assert_eq!(serde_json::to_value(entry()).unwrap(), want);
    }

    #[test]
    fn both_codecs_give_back_what_they_took() {
        let message = StatResponse { entry: Some(entry()) };
        for codec in [Codec::Json, Codec::Proto] {
            assert_eq!(codec.decode::<StatResponse>(&codec.encode(&message)).unwrap(), message);
        }
    }

    #[test]
    fn requests_accept_either_spelling_and_unknown_fields() {
        let request: CreateWatcherRequest = Codec::Json
            .decode(br#"{"path":"x","include_entry":true,"allowNetworkMounts":true,"new":1}"#)
            .unwrap();
        assert!(request.include_entry && request.allow_network_mounts);
        assert!(Codec::Json.decode::<StatRequest>(b"").is_err());
    }
}
