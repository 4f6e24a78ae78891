"""The codec: values and keys ⇄ bytes; the only place that uses pickle and cloudpickle."""
