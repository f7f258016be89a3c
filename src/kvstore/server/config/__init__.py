"""What a kvd is told to be (``options``, ``cluster_config``), and where its data lies
(``data_directory``, ``sealed_file``, ``private_files``)."""
