"""The Sparkplug B payload of Eclipse Tahu, as a protobuf type of the part that is read here.

Field names and numbers are those of `sparkplug_b.proto` (package org.eclipse.tahu.protobuf);
protobuf passes over the fields that are not named. The one kept Python package of Sparkplug holds
its MQTT client below the version that ours needs (ADR 0014), so that the type is made here from its
descriptor, without a compiler.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "org.eclipse.tahu.protobuf"
_FIELD = descriptor_pb2.FieldDescriptorProto
_PAYLOAD_FIELDS = (("timestamp", 1, _FIELD.TYPE_UINT64), ("seq", 3, _FIELD.TYPE_UINT64))
_METRIC_FIELDS = (
    ("name", 1, _FIELD.TYPE_STRING),
    ("alias", 2, _FIELD.TYPE_UINT64),
    ("timestamp", 3, _FIELD.TYPE_UINT64),
    ("datatype", 4, _FIELD.TYPE_UINT32),
    ("is_historical", 5, _FIELD.TYPE_BOOL),
    ("is_null", 7, _FIELD.TYPE_BOOL),
)
_VALUE_FIELDS = (
    ("int_value", 10, _FIELD.TYPE_UINT32),
    ("long_value", 11, _FIELD.TYPE_UINT64),
    ("float_value", 12, _FIELD.TYPE_FLOAT),
    ("double_value", 13, _FIELD.TYPE_DOUBLE),
    ("boolean_value", 14, _FIELD.TYPE_BOOL),
    ("string_value", 15, _FIELD.TYPE_STRING),
)
# Data types of metrics (Sparkplug 3.0, 6.4.16) whose bits are two's complement in their field.
SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}
BOOLEAN = 11


def _payload_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="prepaid/sparkplug_b.proto", package=_PACKAGE, syntax="proto2"
    )
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for message, fields in ((payload, _PAYLOAD_FIELDS), (metric, _METRIC_FIELDS)):
        for name, number, kind in fields:
            message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    for name, number, kind in _VALUE_FIELDS:
        metric.field.add(
            name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL, oneof_index=0
        )
    payload.field.add(
        name="metrics",
        number=2,
        type=_FIELD.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Payload.Metric",
        label=_FIELD.LABEL_REPEATED,
    )
    # A pool of our own: another package may bring the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


# Any: the class is made at run time, and no checker can know its fields.
Payload: Any = _payload_type()
