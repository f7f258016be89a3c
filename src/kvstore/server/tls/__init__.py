"""Certificates: ``pem_files`` read and checked, ``certificate_files`` read again when they change,
``validity`` how long they hold, ``handshakes`` those that nothing followed, ``pki`` a certificate
authority of the cluster's own."""
