// SPDX-License-Identifier: MIT
#include <stdio.h>

int main(void)
{
	puts("lslm " LSLM_VERSION);
	return 0;
}
