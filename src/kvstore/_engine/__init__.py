"""The storage engine in Cython. Not a public interface: use :mod:`kvstore.engine`."""
