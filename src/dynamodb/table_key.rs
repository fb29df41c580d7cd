//! The key that a table needs, by what it holds.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription,
};

use super::lease_table::ID_ATTRIBUTE;
use crate::event::KEY_ATTRIBUTE;

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Events,
    WriterIds,
}

impl Purpose {
    fn key_attribute(self) -> &'static str {
        match self {
            Self::Events => KEY_ATTRIBUTE,
            Self::WriterIds => ID_ATTRIBUTE,
        }
    }

    pub(super) fn key_schema(self) -> Vec<KeySchemaElement> {
        let key = KeySchemaElement::builder()
            .attribute_name(self.key_attribute())
            .key_type(KeyType::Hash)
            .build();
        key.into_iter().collect()
    }

    pub(super) fn attribute_definitions(self) -> Vec<AttributeDefinition> {
        let key = AttributeDefinition::builder()
            .attribute_name(self.key_attribute())
            .attribute_type(ScalarAttributeType::S)
            .build();
        key.into_iter().collect()
    }

    pub(super) fn has_right_key(self, description: &TableDescription) -> bool {
        description.key_schema() == self.key_schema()
            && description
                .attribute_definitions()
                .iter()
                .any(|attribute| self.attribute_definitions().contains(attribute))
    }
}

/// The table's key in words: "hash key `id` of type N and range key `at` of type S".
pub(super) fn key_in_words(description: &TableDescription) -> String {
    let words: Vec<String> = description
        .key_schema()
        .iter()
        .map(|key| {
            let kind = if *key.key_type() == KeyType::Hash { "hash" } else { "range" };
            let name = key.attribute_name();
            let of_type = description
                .attribute_definitions()
                .iter()
                .find(|attribute| attribute.attribute_name() == name)
                .map_or("unknown", |attribute| attribute.attribute_type().as_str());
            format!("{kind} key `{name}` of type {of_type}")
        })
        .collect();
    words.join(" and ")
}
