<?php

declare(strict_types=1);

namespace App;

/** What is left to do when the visitor has the answer. */
final class Later
{
    public ?string $file = null;

    public function __invoke(): void
    {
        if ($this->file !== null) {
            usleep(1_500_000);
            file_put_contents($this->file, 'done');
        }
    }
}
