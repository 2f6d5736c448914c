"""Protobuf messages of clients, also of encoders that do not check that texts are UTF-8."""

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from router.domain.defects import Defect
from router.wire.problems import Problems

CONTENT_TYPE = "application/x-protobuf"
_PREFIXES = (CONTENT_TYPE, "application/protobuf", "application/vnd.google.protobuf")
AnyMessage = TypeVar("AnyMessage", bound=Message)


def is_protobuf(content_type: str | None) -> bool:
    """Whether a Content-Type header means protobuf."""
    return content_type is not None and content_type.strip().lower().startswith(_PREFIXES)


def parse_protobuf(kind: type[AnyMessage], data: bytes, warnings: Problems) -> AnyMessage:
    """Decode a message. In texts that are not UTF-8, the invalid bytes become U+FFFD, with a warning.

    :raises google.protobuf.message.DecodeError: the bytes are no message of this kind.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        descriptor = cast(Descriptor, kind.DESCRIPTOR)
        raw = _with_bytes_for_texts(descriptor).FromString(data)
        _repair(raw, descriptor)
        message = kind.FromString(raw.SerializeToString())
    warnings.warn(Defect.NOT_UTF8, "the body", text="has a text that is not UTF-8: read as U+FFFD")
    return message


@lru_cache
def _with_bytes_for_texts(descriptor: Descriptor) -> type[Message]:
    """Build the message type with `bytes` for every `string`: the encoding is the same, but bytes are not checked."""
    file = FileDescriptorProto()
    descriptor.file.CopyToProto(file)
    _texts_to_bytes(file.message_type)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(descriptor.full_name))


def _texts_to_bytes(messages: Iterable[DescriptorProto]) -> None:
    for message in messages:
        message.options.ClearField("map_entry")  # The key of a map cannot be bytes; a map is encoded as its entries.
        for field in message.field:
            if field.type == FieldDescriptorProto.TYPE_STRING:
                field.type = FieldDescriptorProto.TYPE_BYTES
        _texts_to_bytes(message.nested_type)


def _repair(raw: Message, descriptor: Descriptor) -> None:
    """Replace what is not UTF-8 in the fields that are texts in `descriptor`."""
    for field, value in raw.ListFields():
        declared = descriptor.fields_by_name[field.name]
        values = value if field.is_repeated else [value]
        if declared.type == FieldDescriptor.TYPE_STRING:
            texts = [text.decode(errors="replace").encode() for text in values]
            if field.is_repeated:
                value[:] = texts
            else:
                setattr(raw, field.name, texts[0])
        elif declared.message_type is not None:
            for inner in values:
                _repair(inner, declared.message_type)
