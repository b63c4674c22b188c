import sys

if sys.argv[1:2] == ["worker"] and sys.argv[-1] == "-":  # started by the supervisor
    from pipeline.parent import die_with_supervisor

    die_with_supervisor()  # before anything else is imported: that takes long

from pipeline.cli import main

main()
