"""Jobs as tasks of a Ray cluster. Four processes have a part in it:

    the one that the user started   cluster.py, jobs.py   which jobs, what they need, what is done about lost ones
    Ray's driver, its child         driver.py             the one that speaks with Ray
    a worker on each place          worker.py             does a job
    a mailbox                       mailbox.py            what happens in the workers, on its way to the driver

Ray's driver is a process of its own since Ray ends it where the cluster's head is lost, and writes to its terminal.
"""
