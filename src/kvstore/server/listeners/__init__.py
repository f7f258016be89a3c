"""What listens for clients and operators: ``front`` chooses between ``native`` and ``grpcio``;
``addresses`` says why one can't be had, ``admin_socket`` is the operators' own way in."""
